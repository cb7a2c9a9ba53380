"""Class embeddings on a plane: their two principal components."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Projection:
    """A plane through ``centre`` [E] along ``axes`` [2, E]; ``shares`` of the variance it shows."""

    centre: Tensor
    axes: Tensor
    shares: tuple[float, float]

    def __call__(self, embeddings: Tensor) -> Tensor:
        """Embeddings ``[N, E]`` -> coordinates ``[N, 2]``, in fp64."""
        return (embeddings.double() - self.centre) @ self.axes.T


def principal_plane(embeddings: Tensor) -> Projection:
    """The first two principal components of ``embeddings`` ``[N, E]``, N and E two or more.

    The largest number of an axis is positive, which fixes the signs that a decomposition leaves
    open: the same embeddings give the same map.
    """
    points = embeddings.double()
    centre = points.mean(dim=0)
    _, singular, axes = torch.linalg.svd(points - centre, full_matrices=False)
    axes = axes[:2]
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    axes = axes * largest.sign()
    variances = singular.square()
    first, second = (variances[:2] / variances.sum().clamp_min(1e-300)).tolist()
    return Projection(centre, axes, (first, second))
