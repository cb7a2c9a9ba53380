"""A step recorded once as a CUDA graph and replayed: one launch instead of hundreds."""

from __future__ import annotations

from typing import Literal

import torch

from amfast.optimize.memory import out_of_memory
from amfast.optimize.slots import Slots
from amfast.optimize.step import Step

GraphMode = Literal["auto", "on", "off"]

#: Steps taken as usual before one is recorded: libraries choose their algorithms and compilers
#: finish in them, which a recording does not allow.
_WARM_UP = 3


class GraphedStep:
    """The same as ``step``, on a CUDA device.

    The work on the latents is recorded apart from the step: its results stay at their place in the
    recording's memory, where every replay of the step finds them. ``"auto"`` goes on without a
    recording where one cannot be made, because a network waits for the device in its forward, say,
    and says so; ``"on"`` raises.
    """

    def __init__(self, step: Step, mode: GraphMode) -> None:
        self._step, self._mode = step, mode
        self._graphs: tuple[torch.cuda.CUDAGraph, torch.cuda.CUDAGraph] | None = None
        self._warm = 0

    def load(self, slots: Slots) -> None:
        """Take over a copy of ``slots`` and draw their latents."""
        if self._step.place(slots):
            self._graphs, self._warm = None, 0
        if self._graphs:
            self._graphs[0].replay()
        else:
            self._step.prepare()

    def __call__(self) -> None:
        if self._mode != "off" and self._graphs is None and self._warm == _WARM_UP:
            self._record()
        if self._graphs:
            self._graphs[1].replay()
        else:
            passes = self._step.images_per_pass
            self._step()
            self._warm = self._warm + 1 if passes == self._step.images_per_pass else 0

    def _record(self) -> None:
        step = self._step
        prepare, ascend = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(prepare):
                step.prepare()
            with torch.cuda.graph(ascend, pool=prepare.pool()):
                step.update(*step.ascend())
        except RuntimeError as error:
            if not out_of_memory(error) and self._mode == "on":
                raise
            failure = error.with_traceback(None)
        else:
            prepare.replay()
            self._graphs = prepare, ascend
            return
        self._warm = 0
        if out_of_memory(failure):
            step.halve(failure)
        else:
            self._mode = "off"
            step.on_note(
                f"the step cannot be recorded as a CUDA graph, so it runs without: {failure}"
            )
            step.prepare()
