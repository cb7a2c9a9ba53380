"""How different the images of one class are from each other, over seeded random pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from amfast.ops import lpips_all_pairs, lpips_distance
from amfast.ops._checks import accumulator, check_pairs

#: Elements of feature maps that are copied at once, of either side of a pair.
_COPIED = 1 << 22


def random_pairs(images: int, pairs: int, seed: int) -> Tensor:
    """``pairs`` seeded pairs ``[pairs, 2]`` of different indices below ``images`` (at least 2)."""
    stream = torch.Generator().manual_seed(seed)
    first = torch.randint(images, (pairs,), generator=stream)
    offset = torch.randint(1, images, (pairs,), generator=stream)
    return torch.stack([first, (first + offset) % images], dim=1)


def pooled_distance(images: Tensor, pairs: Tensor) -> Tensor:
    """Root mean square difference of pairs of images pooled to 8x8: ``[N, 3, H, W]`` -> ``[P]``.

    In the images' own units: images in [-1, 1] are at most 2 apart.
    """
    pooled = pool(images)
    return (pooled[pairs[:, 0]] - pooled[pairs[:, 1]]).square().mean(dim=1).sqrt()


def pool(images: Tensor) -> Tensor:
    """Images ``[N, 3, H, W]`` pooled to 8x8, ``[N, 192]`` in fp32."""
    return F.adaptive_avg_pool2d(images.float(), 8).flatten(1)


def pooled_spread(pooled: Tensor) -> Tensor:
    """Root mean square difference over all pairs of the last but one dimension.

    ``[..., N, 192]`` -> ``[...]``; 0 of one image. The mean over pairs of a squared difference is
    twice the variance, so no pair is formed.
    """
    variance = pooled.var(dim=-2, correction=min(1, pooled.shape[-2] - 1))
    return (2 * variance.mean(dim=-1)).sqrt()


def feature_distance(
    features: Sequence[Tensor], pairs: Tensor, weights: Sequence[Tensor] | None = None
) -> Tensor:
    """LPIPS's distance of pairs ``[P, 2]``: feature maps ``[N, C, H, W]`` per layer -> ``[P]``.

    Each layer's maps are normalised to unit length over channels; the squared difference is summed
    over channels by ``weights``, ``[C]`` per layer and ones if None, averaged over space and added
    up over layers (Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual
    Metric", CVPR 2018, equation 1). In fp32, or fp64 for fp64 maps; the same for either order of a
    pair. Raises ``UsageError`` for pairs of another shape or dtype, or of images that there are not
    (looked for on the CPU only).
    """
    check_pairs(pairs, "images", len(features[0]))
    # Two orders would round differently where a compiler fuses a product and a difference.
    ordered = pairs.to(features[0].device).sort(dim=1).values
    total = _zeros(features, len(pairs))
    for maps, w in _weighted(features, weights):
        at_once = max(1, _COPIED // maps.shape[1:].numel())
        parts = [
            lpips_distance(maps[part[:, 0]], maps[part[:, 1]], w) for part in ordered.split(at_once)
        ]
        total += torch.cat(parts)
    return total


def all_feature_distances(
    features: Sequence[Tensor], weights: Sequence[Tensor] | None = None
) -> Tensor:
    """``feature_distance`` of every two images, ``[N, N]``, by ``lpips_all_pairs``.

    Off by some 3e-6 of the largest weight per layer: smaller distances are noise.
    """
    count = len(features[0])
    total = _zeros(features, count, count)
    for maps, w in _weighted(features, weights):
        height = maps.shape[2]
        at_once = max(1, _COPIED // (count * maps.shape[1] * maps.shape[3]))
        for rows in maps.split(at_once, dim=2):  # the mean over positions, a few rows at a time
            total += lpips_all_pairs(rows, w) * (rows.shape[2] / height)
    return total


def _weighted(
    features: Sequence[Tensor], weights: Sequence[Tensor] | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every layer's maps with its weights, in the dtype that its distances have."""
    if weights is None:
        weights = [maps.new_ones(maps.shape[1]) for maps in features]
    for maps, w in zip(features, weights, strict=True):
        yield maps, w.to(accumulator(maps.dtype))


def _zeros(features: Sequence[Tensor], *shape: int) -> Tensor:
    return features[0].new_zeros(shape, dtype=accumulator(features[0].dtype))
