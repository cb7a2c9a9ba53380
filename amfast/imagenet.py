"""The names of ImageNet's classes, from torchvision, and torchvision itself where it is wanted."""

from __future__ import annotations

from typing import Any

from amfast.errors import UsageError

CLASSES = 1000


def torchvision_models() -> Any:
    """``torchvision.models``; ``UsageError`` where it is missing or of another torch."""
    try:
        import torchvision.models
    except (ImportError, RuntimeError) as error:
        raise UsageError(
            f"torchvision, built for this torch, is needed ({error}): pip install torchvision"
        ) from None
    return torchvision.models


def imagenet_labels() -> tuple[str, ...]:
    """The 1,000 names, all different; ``UsageError`` without torchvision."""
    return tuple(torchvision_models().AlexNet_Weights.IMAGENET1K_V1.meta["categories"])
