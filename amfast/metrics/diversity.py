"""How different the images of one class are from each other, over seeded random pairs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from amfast.ops import lpips_distance
from amfast.ops._checks import accumulator

#: Elements of feature maps that are copied at once for the pairs that they are in, of either side.
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
    pooled = F.adaptive_avg_pool2d(images.float(), 8).flatten(1)
    return (pooled[pairs[:, 0]] - pooled[pairs[:, 1]]).square().mean(dim=1).sqrt()


def feature_distance(features: Sequence[Tensor], pairs: Tensor) -> Tensor:
    """LPIPS-style distance with unit weights: feature maps ``[N, C, H, W]`` per layer -> ``[P]``.

    Each layer's maps are normalised to unit length over channels; the squared difference is summed
    over channels, averaged over space and added up over layers (Zhang et al., "The Unreasonable
    Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018, equation 1 with w = 1).
    """
    total = torch.zeros(len(pairs), device=features[0].device)
    for maps in features:
        unit = maps.new_ones(maps.shape[1], dtype=accumulator(maps.dtype))
        at_once = max(1, _COPIED // maps.shape[1:].numel())
        parts = [
            lpips_distance(maps[part[:, 0]], maps[part[:, 1]], unit)
            for part in pairs.split(at_once)
        ]
        total += torch.cat(parts)
    return total
