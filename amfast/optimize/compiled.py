"""A classifier under ``torch.compile``, tried out before a run relies on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock

import torch
from torch import Tensor

from amfast.classifiers.protocol import Classifier, ModuleClassifier
from amfast.device_errors import is_device_error, out_of_memory
from amfast.errors import UsageError
from amfast.optimize.memory import Pass
from amfast.optimize.parallel import side_by_side
from amfast.text import first_line


def compiled_for(
    classifier: Classifier,
    passes: Sequence[Pass],
    device: torch.device,
    *,
    size: int | None = None,
    required: bool,
    on_note: Callable[[str], None],
) -> Classifier:
    """The classifier compiled for ``passes``, forward and input gradient.

    For inputs of ``size`` pixels a side, by default those of its spec.
    The first of them is tried in the thread that will run it: what is compiled holds for as many of
    torch's threads as it saw.
    Where that fails, for want of a compiler, say, the classifier itself with a note; ``UsageError``
    if it is ``required``. So it goes for other shapes when they come, too. One that is no
    ``ModuleClassifier`` stays as it is.
    """
    if not isinstance(classifier, ModuleClassifier):
        return classifier
    name = classifier.spec.name

    def give_up(error: Exception) -> None:
        reason = first_line(error)
        if required:
            raise UsageError(
                f"classifier {name} cannot be compiled here: {reason}; use --compile off"
            ) from error
        on_note(f"classifier {name} runs uncompiled: {reason}")

    size, faster = size or classifier.spec.size, classifier.compiled()
    faster.module = tried = _Tried(faster.module, classifier.module, give_up)
    first = passes[0]
    images = first.trials.stop * first.latents.stop

    def rehearse(_: int) -> None:
        faster(torch.zeros(images, 3, size, size, device=device, requires_grad=True))

    try:
        with side_by_side(device, len(passes)) as run:
            run(rehearse, [0])
    except RuntimeError as error:
        if not out_of_memory(error):  # the first step will halve the pass until it fits
            raise
    return classifier if tried.given_up else faster


class _Tried:
    """``fast``, tried forward and back on each new shape of input, and ``plain`` once it failed.

    A backward is compiled long after its forward returned, in autograd's hands: only a trial of
    both, beforehand, leaves the step whole. ``give_up`` hears of the failure.
    """

    def __init__(
        self,
        fast: Callable[[Tensor], Tensor],
        plain: Callable[[Tensor], Tensor],
        give_up: Callable[[Exception], None],
    ) -> None:
        self._fast, self._plain, self._give_up = fast, plain, give_up
        self._shapes: set[torch.Size] = set()
        self._lock = Lock()
        self.given_up = False

    def __call__(self, inputs: Tensor) -> Tensor:
        if inputs.shape not in self._shapes:
            with self._lock:
                self._try(inputs)
        return (self._plain if self.given_up else self._fast)(inputs)

    def _try(self, inputs: Tensor) -> None:
        if inputs.shape in self._shapes or self.given_up:
            return
        sample = torch.zeros_like(inputs, requires_grad=True)
        try:
            with torch.enable_grad():
                torch.autograd.grad(self._fast(sample).sum(), sample)
        except Exception as error:  # compilers fail with types of all kinds
            if is_device_error(error) or out_of_memory(error):
                raise
            self.given_up = True
            self._give_up(error)
        self._shapes.add(inputs.shape)
