"""A classifier under ``torch.compile``, tried out before a run relies on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from amfast.classifiers.protocol import Classifier, ModuleClassifier
from amfast.errors import UsageError
from amfast.optimize.memory import Pass
from amfast.optimize.parallel import side_by_side


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
    if it is ``required``. One that is no ``ModuleClassifier`` stays as it is.
    """
    if not isinstance(classifier, ModuleClassifier):
        return classifier
    size, faster = size or classifier.spec.size, classifier.compiled()
    first = passes[0]
    images = first.trials.stop * first.latents.stop

    def rehearse(_: int) -> None:
        sample = torch.zeros(images, 3, size, size, device=device, requires_grad=True)
        torch.autograd.grad(faster(sample).sum(), sample)

    try:
        with side_by_side(device, len(passes)) as run:
            run(rehearse, [0])
    except (RuntimeError, OSError) as error:  # a compiler's own errors are RuntimeErrors
        reason = str(error).strip().splitlines()[0]
        if required:
            raise UsageError(
                f"classifier {classifier.spec.name} cannot be compiled here: {reason}; "
                "use --compile off"
            ) from error
        on_note(f"classifier {classifier.spec.name} runs uncompiled: {reason}")
        return classifier
    return faster
