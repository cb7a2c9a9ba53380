"""A classifier under ``torch.compile``, tried out before a run relies on it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from amfast.classifiers.protocol import Classifier, ModuleClassifier
from amfast.errors import UsageError


def compiled_for(
    classifier: Classifier,
    images: int,
    device: torch.device,
    *,
    required: bool,
    on_note: Callable[[str], None],
) -> Classifier:
    """The classifier compiled for passes of ``images`` images, forward and input gradient.

    Where that fails, for want of a compiler, say, the classifier itself with a note; ``UsageError``
    if it is ``required``. One that is no ``ModuleClassifier`` stays as it is.
    """
    if not isinstance(classifier, ModuleClassifier):
        return classifier
    size, faster = classifier.spec.size, classifier.compiled()
    sample = torch.zeros(images, 3, size, size, device=device, requires_grad=True)
    try:
        torch.autograd.grad(faster(sample).sum(), sample)
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
