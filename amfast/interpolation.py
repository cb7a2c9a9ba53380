"""Images on the way from one embedding, or one latent, to another (paper, Fig. 4)."""

from __future__ import annotations

import torch
from torch import Tensor

from amfast.generators.protocol import Generator


def between(first: Tensor, last: Tensor, frames: int) -> Tensor:
    """``frames`` evenly spaced points from ``first`` to ``last``, both ``[D]``: ``[frames, D]``."""
    share = torch.linspace(0, 1, frames, dtype=first.dtype, device=first.device)[:, None]
    return torch.lerp(first[None], last[None].to(first), share)


@torch.no_grad()
def frame_images(generator: Generator, embeddings: Tensor, latents: Tensor) -> Tensor:
    """Images ``[F, 3, R, R]`` of embeddings ``[F, E]`` and latents ``[F, D]``, fp32 on the CPU.

    Either may have one row, which then serves for every frame.
    """
    frames = max(len(embeddings), len(latents))
    table = generator.class_embeddings
    images = generator(
        embeddings.to(table).expand(frames, -1), latents.to(table).expand(frames, -1)[:, None]
    )
    return images.float().cpu()
