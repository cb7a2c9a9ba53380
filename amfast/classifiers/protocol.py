"""What amfast asks of a classifier, and how images are brought to its input."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from amfast.fingerprint import fingerprint
from amfast.ops.resize_to_classifier import ImageInput, ResizeMode, resize_to_classifier

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ClassifierSpec:
    """The facts about a classifier: its square input size, its normalisation, its class names."""

    name: str
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    labels: tuple[str, ...] = field(repr=False)
    fingerprint: str
    resize: ResizeMode = "bilinear"


@runtime_checkable
class Classifier(Protocol):
    """A frozen classifier."""

    @property
    def spec(self) -> ClassifierSpec: ...

    def __call__(self, inputs: Tensor) -> Tensor:
        """Normalised inputs ``[N, 3, size, size]`` -> logits ``[N, C]``."""
        ...


def to_classifier_input(
    images: Tensor,
    spec: ClassifierSpec,
    *,
    input: ImageInput = "image",
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Images ``[N, 3, H, W]`` in [-1, 1] -> ``[N, 3, size, size]``, resized and normalised.

    With ``input="pre_tanh"`` the images are the tanh of what is given. The result is in ``dtype``,
    by default that of ``images``, and channels_last. ``"bilinear"``, as the paper's classifiers
    were fed, is torch's with ``align_corners=False`` and without antialiasing.
    """
    return resize_to_classifier(
        images, spec.size, spec.mean, spec.std, mode=spec.resize, input=input, dtype=dtype
    )


class ModuleClassifier:
    """A copy of any ``nn.Module`` that maps normalised images to logits, frozen.

    With a 16-bit ``dtype`` it runs under autocast: convolutions and products in that type, their
    weights cast once, everything that autocast holds to be delicate in fp32.
    """

    def __init__(
        self, module: nn.Module, spec: ClassifierSpec, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.spec, self.dtype = spec, dtype
        half = dtype in (torch.float16, torch.bfloat16)
        copied = copy.deepcopy(module).eval().requires_grad_(False)
        copied.to(device, torch.float32 if half else dtype)
        if half:
            for part in copied.modules():
                if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
                    part.to(dtype)
        self.module: Callable[[Tensor], Tensor]
        self.module = copied.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._precision: Callable[[], AbstractContextManager[object]] = nullcontext
        if half:
            self._precision = partial(torch.autocast, device.type, dtype, cache_enabled=False)

    def __call__(self, inputs: Tensor) -> Tensor:
        x = inputs.to(self.dtype).contiguous(memory_format=torch.channels_last)
        with self._precision():
            return self.module(x)

    def compiled(self) -> ModuleClassifier:
        """The same with its module under ``torch.compile``, for inputs of few different shapes."""
        twin = copy.copy(self)
        twin.module = torch.compile(self.module, dynamic=False)
        return twin


def wrap_module(
    module: nn.Module,
    *,
    device: torch.device,
    dtype: torch.dtype,
    name: str | None = None,
    size: int = 224,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
    labels: tuple[str, ...] | None = None,
) -> ModuleClassifier:
    """Make a classifier of a bare module; without ``labels`` its classes are named "0", "1", ..."""
    print_ = fingerprint(module.state_dict())
    spec = ClassifierSpec(name or type(module).__name__, size, mean, std, labels or (), print_)
    classifier = ModuleClassifier(module, spec, device, dtype)
    if labels is None:
        with torch.no_grad():
            classes = classifier(torch.zeros(1, 3, size, size, device=device)).shape[1]
        numbered = tuple(str(i) for i in range(classes))
        classifier.spec = ClassifierSpec(spec.name, size, mean, std, numbered, print_)
    return classifier
