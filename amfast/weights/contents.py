"""Whether a file that was fetched holds the model that was asked for."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from amfast.errors import UsageError, WeightsError


def check_contents(name: str, tensors: Mapping[str, Tensor]) -> None:
    """Raise ``WeightsError`` unless these are the tensors of the model of this name, and finite.

    Keys and shapes are looked at where amfast knows the model: every generator, and the classifiers
    of the paper where torchvision is installed.
    """
    if _is_known_model(name, tensors):  # and its numbers were looked at with its keys
        return
    broken = [key for key, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise WeightsError(f"it holds numbers that are not finite: {', '.join(broken[:5])}")


def _is_known_model(name: str, tensors: Mapping[str, Tensor]) -> bool:
    """False where amfast cannot tell; ``WeightsError`` where the tensors are not the model's."""
    # Whoever loads a model imports the store, so the store asks them only when it is asked.
    from amfast.classifiers.published import PUBLISHED, check_classifier
    from amfast.generators.architectures import ARCHITECTURES
    from amfast.generators.sources import check_generator

    if name in ARCHITECTURES:
        check_generator(name, tensors)
        return True
    if name not in PUBLISHED:
        return False
    try:
        check_classifier(name, tensors)
    except UsageError:  # no torchvision: whoever loads the file will need it, and look then
        return False
    return True
