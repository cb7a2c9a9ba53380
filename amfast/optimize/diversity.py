"""The explicit diversity term of AM-D: images of far latents should be far from each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from amfast.ops import softmax_pair_distance

#: What images are compared by: themselves, the classifier's last feature maps (AlexNet's conv5), or
#: its class probabilities.
Phi = Literal["pixel", "conv5", "softmax"]


@dataclass(frozen=True)
class DiversityTerm:
    """``weight`` is the paper's lambda, ``phi`` what images are compared by (section 3.5)."""

    phi: Phi
    weight: float


def latent_gaps(latents: Tensor) -> Tensor:
    """``|z_i - z_j|`` of every two latents that follow each other: ``[T, Z, D]`` -> ``[T, Z / 2]``.

    They are the pairs of the term: of 20 latents ten that share none.
    """
    first, second = latents.unflatten(1, (-1, 2)).unbind(2)
    gaps: Tensor = torch.linalg.vector_norm(first - second, dim=2)
    return gaps


def pair_distances(phi: Phi, features: Tensor) -> Tensor:
    """``|phi(x_i) - phi(x_j)|`` of the same pairs, ``[N / 2]`` in fp32.

    ``features`` ``[N, ...]`` are images, feature maps, or, for ``"softmax"``, logits. Euclidean;
    the gradient of a pair at distance 0 is 0.
    """
    pairs = torch.arange(len(features), device=features.device).view(-1, 2)
    if phi == "softmax":
        return softmax_pair_distance(features, pairs).float()
    first, second = features.flatten(1).float().unflatten(0, (-1, 2)).unbind(1)
    distances: Tensor = torch.linalg.vector_norm(first - second, dim=1)
    return distances
