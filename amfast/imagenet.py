"""The names of ImageNet's classes, from torchvision, and torchvision itself where it is wanted."""

from __future__ import annotations

from importlib import import_module
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


def imagenet_wnids() -> tuple[str, ...]:
    """The classes' WordNet ids, which name ImageNet's folders; ``UsageError`` without timm."""
    try:
        data: Any = import_module("timm.data")  # typed in part, and not for what is used here
    except ImportError as error:
        raise UsageError(
            f"timm, which knows ImageNet's folder names, is needed ({error}): "
            "pip install 'amfast[classifiers]'"
        ) from None
    return tuple(data.ImageNetInfo().label_names())
