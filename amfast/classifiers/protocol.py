"""What amfast asks of a classifier, and how images are brought to its input."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from amfast.classifiers.features import FeatureExtractor, check_layers
from amfast.errors import UsageError
from amfast.fingerprint import fingerprint
from amfast.ops.resize_to_classifier import ImageInput, ResizeMode, resize_to_classifier

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ClassifierSpec:
    """The facts about a classifier: its square input size, its normalisation, its class names.

    ``feature_layers`` are the dotted names of the submodules whose outputs are its feature maps, in
    the order in which they run.
    """

    name: str
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    labels: tuple[str, ...] = field(repr=False)
    fingerprint: str
    resize: ResizeMode = "bilinear"
    feature_layers: tuple[str, ...] = field(default=(), repr=False)


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
        check_layers(module, spec.feature_layers)
        self.spec, self.device, self.dtype = spec, device, dtype
        half = dtype in (torch.float16, torch.bfloat16)
        copied = copy.deepcopy(module).eval().requires_grad_(False)
        copied.to(device, torch.float32 if half else dtype)
        if half:
            for part in copied.modules():
                if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
                    part.to(dtype)
        self._plain: nn.Module
        self._plain = copied.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.module: Callable[[Tensor], Tensor] = self._plain
        self._precision: Callable[[], AbstractContextManager[object]] = nullcontext
        if half:
            self._precision = partial(torch.autocast, device.type, dtype, cache_enabled=False)

    def __call__(self, inputs: Tensor) -> Tensor:
        with self._precision():
            return self.module(self._brought(inputs))

    def features(self, inputs: Tensor, layers: Sequence[str] | None = None) -> tuple[Tensor, ...]:
        """The feature maps of normalised inputs ``[N, 3, size, size]``, one tensor per layer.

        ``layers`` are some of ``spec.feature_layers``, all by default; what comes after the last of
        them does not run. Differentiable, never compiled, and callable from several threads at
        once. In 16 bits a map has the dtype that autocast left it in.

        Raises ``UsageError`` for a layer that is not among them, for a classifier that names none,
        and for a layer that gives no map.
        """
        wanted = self._named(layers)
        with self._precision():
            return self._extract(self._brought(inputs), wanted)

    def with_features(
        self, inputs: Tensor, layers: Sequence[str] | None = None
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """The same feature maps, and the logits ``[N, C]``, from one pass."""
        wanted = self._named(layers)
        with self._precision():
            return self._extract.with_output(self._brought(inputs), wanted)

    def _named(self, layers: Sequence[str] | None) -> tuple[str, ...]:
        known = self.spec.feature_layers
        if not known:
            raise UsageError(
                f"the classifier {self.spec.name} names no feature layers: give "
                "amfast.wrap_module(module, feature_layers=[...]) names of its submodules"
            )
        wanted = known if layers is None else tuple(layers)
        for layer in wanted:
            if layer not in known:
                raise UsageError(
                    f"the classifier {self.spec.name} has no feature layer {layer!r}: it has "
                    f"{', '.join(known)}"
                )
        return wanted

    @cached_property
    def _extract(self) -> FeatureExtractor:
        return FeatureExtractor(self._plain, self.spec.feature_layers)

    def _brought(self, inputs: Tensor) -> Tensor:
        return inputs.to(self.dtype).contiguous(memory_format=torch.channels_last)

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
    feature_layers: Sequence[str] = (),
) -> ModuleClassifier:
    """Make a classifier of a bare module; without ``labels`` its classes are named "0", "1", ...

    ``feature_layers`` are the dotted names of the submodules whose outputs ``features`` is to give,
    in the order in which they run; ``UsageError`` for one that there is not.
    """
    spec = ClassifierSpec(
        name=name or type(module).__name__,
        size=size,
        mean=mean,
        std=std,
        labels=labels or (),
        fingerprint=fingerprint(module.state_dict()),
        feature_layers=tuple(feature_layers),
    )
    classifier = ModuleClassifier(module, spec, device, dtype)
    if labels is None:
        with torch.no_grad():
            classes = classifier(torch.zeros(1, 3, size, size, device=device)).shape[1]
        classifier.spec = replace(spec, labels=tuple(str(i) for i in range(classes)))
    return classifier
