"""A step recorded once as a CUDA graph and replayed: one launch instead of hundreds."""

from __future__ import annotations

import warnings
from typing import Literal

import torch

from amfast.device_errors import is_device_error, out_of_memory
from amfast.errors import UsageError
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
    and says so; ``"on"`` raises ``UsageError``.
    """

    def __init__(self, step: Step, mode: GraphMode, device: torch.device) -> None:
        self._step, self._mode = step, mode
        self._stream = torch.cuda.Stream(device)
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
            return
        images = self._step.images_per_pass
        if self._mode != "off" and self._warm == _WARM_UP - 1:
            self._rehearse()
        else:
            self._step()
        self._warm = self._warm + 1 if images == self._step.images_per_pass else 0

    def _rehearse(self) -> None:
        """A step in which waiting for the device is an error, as it is in a recording.

        A recording that fails can leave torch's allocator in disorder; this leaves nothing.
        """
        before, failure = torch.cuda.get_sync_debug_mode(), None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that the mode does not see everything
            torch.cuda.set_sync_debug_mode("error")
        try:
            self._step()
        except RuntimeError as error:
            failure = error.with_traceback(None)
        finally:
            torch.cuda.set_sync_debug_mode(before)
        if failure is not None:
            self._give_up(failure)
            self._step()  # the same one: an error comes before the slots change

    def _record(self) -> None:
        step = self._step
        prepare, advance = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(prepare, stream=self._stream):
                step.prepare()
            with torch.cuda.graph(advance, pool=prepare.pool(), stream=self._stream):
                step.update(step.ascend())
        except RuntimeError as error:
            first = error.__context__  # what ending a spoilt recording raises hides its cause
            cause = first if isinstance(first, RuntimeError) else error
            failure = cause.with_traceback(None)
        else:
            prepare.replay()
            self._graphs = prepare, advance
            return
        self._warm = 0
        if out_of_memory(failure):
            step.halve(failure)
        else:
            self._give_up(failure)
            step.prepare()

    def _give_up(self, failure: RuntimeError) -> None:
        if is_device_error(failure):
            raise failure
        said = f"the step cannot be recorded as a CUDA graph: {failure}"
        if self._mode == "on":
            raise UsageError(f"{said}; use --compile off") from failure
        self._mode = "off"
        self._step.on_note(f"{said}; it runs without one")
