"""Stand-ins for the networks whose features the metrics are of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class StandIn:
    """Every pixel is a feature, and a logit."""

    name: str = "stand-in"
    fingerprint: str = "0123456789abcdef"

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images.flatten(1), images.flatten(1)


NETWORK = StandIn()


def drawn(count: int, dim: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Features ``[count, dim]`` that depend on each other, away from 0, of different sizes."""
    stream = torch.Generator().manual_seed(seed)
    mix = torch.randn(dim, dim, generator=stream, dtype=torch.float64) / dim**0.5
    sizes = torch.logspace(0, -2, dim, dtype=torch.float64)
    rows = torch.randn(count, dim, generator=stream, dtype=torch.float64) @ mix
    return ((rows + 0.3 * seed + 1) * sizes).to(dtype)
