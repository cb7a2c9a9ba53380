"""Networks whose features images are compared by, and what the metrics ask of features."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from amfast.classifiers.protocol import ModuleClassifier, to_classifier_input
from amfast.errors import UsageError

#: The network that gives a metric its bare name: the field's Inception, as published.
INCEPTION = "fid-inception"

#: How far beyond [-1, 1] rounding may carry an image in bf16.
_SLACK = 1 / 128


@runtime_checkable
class FeatureNetwork(Protocol):
    """A frozen network that tells images apart."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str:
        """Of its weights: features are compared with those of the same network alone."""
        ...

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images ``[N, 3, H, W]`` in [-1, 1] -> features ``[N, D]`` and logits ``[N, C]``, fp32."""
        ...


class ClassifierFeatures:
    """A classifier as a feature network: its last feature maps, pooled over space, and its logits.

    A metric of its features carries its name, ``fid[alexnet]``: values of two networks are not
    comparable.
    """

    def __init__(self, classifier: ModuleClassifier) -> None:
        self.classifier = classifier
        self.name, self.fingerprint = classifier.spec.name, classifier.spec.fingerprint

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As ``FeatureNetwork``.

        Raises ``UsageError`` for what are not images in [-1, 1], and for a classifier that names no
        feature layers.
        """
        check_images(images)
        spec = self.classifier.spec
        inputs = to_classifier_input(images, spec, dtype=self.classifier.dtype)
        maps, logits = self.classifier.with_features(inputs, spec.feature_layers[-1:])
        return maps[-1].float().mean(dim=(2, 3)), logits.float()


def measure_name(metric: str, network: str) -> str:
    """``fid`` by the published Inception, ``fid[network]`` by any other network."""
    return metric if network == INCEPTION else f"{metric}[{network}]"


def check_images(images: Tensor) -> None:
    """``UsageError`` unless images are floating ``[N, 3, H, W]`` in [-1, 1], rounding apart."""
    if images.dim() != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise UsageError(
            f"images are {list(images.shape)} of {images.dtype}; they must be [N, 3, H, W] of a "
            "floating dtype, in [-1, 1]."
        )
    if images.numel():
        low, high = (float(bound) for bound in images.aminmax())
        if not (low >= -1 - _SLACK and high <= 1 + _SLACK):  # NaN is neither
            raise UsageError(
                f"images range from {low:g} to {high:g}; they must be in [-1, 1]: divide bytes by "
                "127.5 and subtract 1, and leave out images that are not finite."
            )


def check_features(name: str, features: Tensor) -> None:
    """``UsageError`` unless features (or logits) are ``[N, D]``, floating and finite."""
    if features.dim() != 2 or not features.is_floating_point() or features.shape[1] == 0:
        raise UsageError(
            f"{name} are {list(features.shape)} of {features.dtype}; they must be [N, D] of a "
            "floating dtype, a row for every image."
        )
    broken = int((~features.isfinite().all(dim=1)).sum())
    if broken:
        raise UsageError(
            f"{name} hold NaN or infinity in {broken} of {len(features)} rows; leave those images "
            "out, or run the network in fp32."
        )
