"""LPIPS: how different two images look to a network, from one pass of every image through it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from amfast.classifiers.protocol import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ClassifierSpec,
    ModuleClassifier,
    to_classifier_input,
)
from amfast.classifiers.published import ALEXNET_LAYERS
from amfast.config import DtypeName
from amfast.device import resolve_device, resolve_dtype
from amfast.errors import UsageError, WeightsError
from amfast.fingerprint import fingerprint
from amfast.generators.family import fill
from amfast.imagenet import torchvision_models
from amfast.metrics.diversity import all_feature_distances, feature_distance
from amfast.ops._checks import accumulator, check_map
from amfast.weights.files import RANDOM, read_weights

#: How far beyond [-1, 1] an image may be: what rounding does to it, in 16 bits too.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class Variant:
    """A published LPIPS network.

    ``function`` of ``torchvision.models`` makes it, and is what the weight store calls its weights;
    ``layers`` are the submodules whose maps are compared, of so many ``channels``; ``smallest`` is
    the shortest side of an image that reaches the last of them.
    """

    function: str
    layers: tuple[str, ...]
    channels: tuple[int, ...]
    smallest: int


def _features(*indices: int) -> tuple[str, ...]:
    return tuple(f"features.{i}" for i in indices)


VARIANTS = {
    "alex": Variant("alexnet", ALEXNET_LAYERS, (64, 192, 384, 256, 256), 31),
    "vgg": Variant("vgg16", _features(3, 8, 15, 22, 29), (64, 128, 256, 512, 512), 16),
    "squeeze": Variant(
        "squeezenet1_1",
        _features(1, 4, 7, 9, 10, 11, 12),
        (64, 128, 256, 384, 384, 512, 512),
        17,
    ),
}


class Lpips:
    """The perceptual distance of Zhang et al. (CVPR 2018, equation 1): 0 for equal images.

    Higher is more different; published values lie between 0 and about 1. ``name`` and
    ``fingerprint``, a hash of all its weights, say which LPIPS a number comes from. ``load_lpips``
    and ``classifier_lpips`` make one.
    """

    def __init__(
        self,
        name: str,
        network: ModuleClassifier,
        to_inputs: Callable[[Tensor], Tensor],
        *,
        weights: Sequence[Tensor] | None,
        fingerprint: str,
        smallest: int = 1,
    ) -> None:
        """``network`` gives feature maps of what ``to_inputs`` makes of images; ``weights`` are one
        ``[C]`` per layer, ones if None."""
        self.name, self.fingerprint = name, fingerprint
        self._network, self._to_inputs, self._smallest = network, to_inputs, smallest
        self._weights = None if weights is None else [w.to(network.device) for w in weights]

    @torch.no_grad()
    def features(self, images: Tensor, images_per_pass: int = 32) -> tuple[Tensor, ...]:
        """Images ``[N, 3, H, W]`` in [-1, 1] -> a feature map ``[N, C, h, w]`` per layer.

        The images may be on any device and of any floating dtype. The maps are on the network's
        device, in its dtype and channels_last: of a 256-pixel image they are 2.6 MB for AlexNet,
        32 MB for VGG and 8.8 MB for SqueezeNet in fp32, half of that in 16 bits. They do not
        depend on ``images_per_pass`` but for rounding, and equal images have equal maps.

        Raises ``UsageError`` for another shape, no images, images that are too small for the
        network or not in [-1, 1], and for a layer whose output is no map.
        """
        self._check(images, images_per_pass)
        count, dtype = len(images), self._network.dtype
        together = min(images_per_pass, count)
        maps: list[Tensor] = []
        for start in range(0, count, together):
            # All passes are of one size, because libraries choose their algorithms by it, and with
            # them how sums are rounded: the last one repeats some images of the one before.
            rows = slice(min(start, count - together), min(start + together, count))
            given = images[rows].to(self._network.device, accumulator(dtype))
            found = self._network.features(self._to_inputs(given))
            maps = maps or [self._room(count, part) for part in found]
            for whole, part in zip(maps, found, strict=True):
                whole[rows] = part
        return tuple(maps)

    def distances(self, features: Sequence[Tensor], pairs: Tensor) -> Tensor:
        """The distances ``[P]`` of pairs ``[P, 2]`` of images, int64 indices, from ``features``.

        In fp32, whatever the maps are in (fp64 for fp64 maps). The same for either order of a pair,
        and exactly 0 for equal images. Raises ``UsageError`` for pairs of another shape or dtype,
        or with an index that no image has (looked for on the CPU only).
        """
        return feature_distance(features, pairs, self._weights)

    def all_pairs(self, features: Sequence[Tensor]) -> Tensor:
        """The distance of every image to every other, ``[N, N]``, from ``features``.

        Faster than ``distances`` for more than some N pairs, by products of matrices: off by a few
        1e-6, so that the distances of nearly equal images are noise. Symmetric, and its diagonal is
        exactly 0.
        """
        return all_feature_distances(features, self._weights)

    def _room(self, count: int, part: Tensor) -> Tensor:
        """For maps like those in ``part``, of all images."""
        if part.dim() != 4:
            raise UsageError(
                f"{self.name} has a layer that gives {list(part.shape)}; LPIPS compares maps "
                "[N, C, H, W]: name layers that give those"
            )
        return torch.empty(
            (count, *part.shape[1:]),
            dtype=self._network.dtype,
            device=part.device,
            memory_format=torch.channels_last,
        )

    def _check(self, images: Tensor, images_per_pass: int) -> None:
        if images_per_pass < 1:
            raise UsageError(f"images_per_pass is {images_per_pass}; it must be at least 1.")
        check_map("images", images)
        if images.shape[1] != 3 or len(images) == 0:
            raise UsageError(
                f"images has shape {list(images.shape)}; it must be [N, 3, H, W] with at least one "
                "image."
            )
        if min(images.shape[2:]) < self._smallest:
            raise UsageError(
                f"images has shape {list(images.shape)}; {self.name} takes sides of "
                f"{self._smallest} pixels and more."
            )
        low, high = (float(bound) for bound in images.aminmax())
        if not (low >= -1 - _ROUNDING and high <= 1 + _ROUNDING):
            raise UsageError(
                f"images holds values from {low:g} to {high:g}; they must be finite and in "
                "[-1, 1]: bring bytes there by x / 127.5 - 1."
            )


def classifier_lpips(classifier: ModuleClassifier) -> Lpips:
    """LPIPS over a classifier's feature layers with unit weights, named ``lpips[<classifier>]``.

    Its numbers compare with no published ones. Images are brought to the classifier's size and
    normalisation first. Raises ``UsageError`` for a classifier that names no feature layers.
    """
    spec = classifier.spec
    if not spec.feature_layers:
        raise UsageError(
            f"the classifier {spec.name} names no feature layers, which LPIPS compares: give "
            "amfast.wrap_module(module, feature_layers=[...]) names of its submodules"
        )
    to_inputs = partial(to_classifier_input, spec=spec, dtype=classifier.dtype)
    return Lpips(
        f"lpips[{spec.name}]", classifier, to_inputs, weights=None, fingerprint=spec.fingerprint
    )


def load_lpips(
    net: str,
    *,
    weights: str | Path | None = None,
    linear_weights: str | Path | None = None,
    device: str | torch.device = "auto",
    dtype: DtypeName = "fp32",
) -> Lpips:
    """LPIPS as the lpips package has it, version 0.1, by ``"alex"``, ``"vgg"`` or ``"squeeze"``.

    Its numbers are the package's within 1e-5 on the same weights. The backbone's come from the
    weight store, the linear layers' from the installed lpips package; ``weights`` and
    ``linear_weights`` are files in their place. ``weights="random"`` draws seeded ones. In 16 bits
    (``dtype``) the backbone runs under autocast and the maps take half the memory.

    Raises ``UsageError`` for an unknown ``net`` or a library that is missing, and ``WeightsError``
    for weights that are not here or do not fit.
    """
    if net not in VARIANTS:
        raise UsageError(f"unknown LPIPS network {net!r}; it may be one of {', '.join(VARIANTS)}")
    variant, target = VARIANTS[net], resolve_device(device)
    linear = _linear_weights(net, variant, linear_weights)
    network = _backbone(net, variant, weights)
    parts = [f"lpips-{net}", *(Path(given).stem for given in (weights, linear_weights) if given)]
    spec = ClassifierSpec(
        name="-".join(parts),
        size=224,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        labels=(),
        fingerprint=fingerprint({**network.state_dict(), **linear}),
        feature_layers=variant.layers,
    )
    return Lpips(
        spec.name,
        ModuleClassifier(network, spec, target, resolve_dtype(dtype, target)),
        partial(_normalised, spec=spec),
        weights=[w.flatten() for w in linear.values()],
        fingerprint=spec.fingerprint,
        smallest=variant.smallest,
    )


def _normalised(images: Tensor, spec: ClassifierSpec) -> Tensor:
    """Images in [-1, 1] by the classifier's mean and std, at their own size."""
    mean, std = (images.new_tensor(values)[:, None, None] for values in (spec.mean, spec.std))
    return (images - (2 * mean - 1)) / (2 * std)


def _backbone(net: str, variant: Variant, weights: str | Path | None) -> nn.Module:
    """The convolutions of torchvision's network, in evaluation mode on the CPU."""
    function = getattr(torchvision_models(), variant.function)
    with torch.device("meta"):
        network: nn.Module = function(weights=None)
    network.classifier = nn.Identity()  # up to 120 million weights that LPIPS does not use
    if weights is not None and str(weights) == RANDOM:
        return _with_random_weights(network)
    if weights is None:
        from amfast.weights import store  # its HTTP libraries take a tenth of a second to import

        weights = store.resolve(variant.function, for_metric=True)
    state, _ = read_weights(Path(weights))
    convolutions = {k: tensor for k, tensor in state.items() if k.startswith("features.")}
    return fill(network, convolutions, f"the backbone of lpips-{net}")


def _with_random_weights(network: nn.Module) -> nn.Module:
    """Seeded, by He's initialisation, under which no signal dies out."""
    network.to_empty(device="cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for part in network.modules():
            if isinstance(part, nn.Conv2d):
                part.reset_parameters()
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
    return network.eval().requires_grad_(False)


def _linear_weights(net: str, variant: Variant, given: str | Path | None) -> dict[str, Tensor]:
    """The weights ``[1, C, 1, 1]`` of every layer, by their published names."""
    path = _packaged(net) if given is None else Path(given)
    state, _ = read_weights(path)
    found: dict[str, Tensor] = {}
    for i, channels in enumerate(variant.channels):
        name, shape = f"lin{i}.model.1.weight", (1, channels, 1, 1)
        tensor = state.get(name)
        if tensor is None or tensor.shape != shape or not (tensor >= 0).all():
            raise WeightsError(
                f"{path} does not fit lpips-{net}: expected {name} of shape {list(shape)}, none of "
                "its values negative"
            )
        found[name] = tensor.float()
    return found


def _packaged(net: str) -> Path:
    """The file in the lpips package, which is not imported: that takes seconds."""
    package = find_spec("lpips")
    if package is None or package.origin is None:
        raise UsageError(
            f"lpips-{net} takes its linear weights from the lpips package: pip install lpips, or "
            "give a file of them as linear_weights"
        )
    return Path(package.origin).parent / "weights" / "v0.1" / f"{net}.pth"
