"""What an embedding is worth: sampled on latents that no optimisation has seen."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from amfast.generators.protocol import Generator
from amfast.metrics.diversity import pooled_distance, random_pairs
from amfast.metrics.ms_ssim import pairwise_ms_ssim
from amfast.optimize.objective import TargetLogProb

#: The latents' stream is keyed by this and the run's seed, apart from every trial's own.
_EVALUATION = 0x5EED


@dataclass(frozen=True)
class EmbeddingScore:
    """Over ``images`` fresh latents, the same for every embedding of a run.

    ``target_prob`` is the mean probability of the target class and ``accuracy`` the share of images
    whose most probable class it is, both in [0, 1]; ``distance`` the mean pairwise distance (RMS of
    images pooled to 8x8) over ``pairs`` random pairs, and ``ms_ssim`` their mean multi-scale
    structural similarity, in [0, 1]: more diverse where the first is higher and the second lower.
    """

    target_prob: float
    accuracy: float
    distance: float
    ms_ssim: float
    images: int
    pairs: int

    @property
    def finite(self) -> bool:
        return all(map(math.isfinite, (self.target_prob, self.distance, self.ms_ssim)))

    def to_json(self) -> dict[str, float | int]:
        return asdict(self)


def evaluation_latents(count: int, latent_dim: int, seed: int, device: torch.device) -> Tensor:
    """Latents ``[count, latent_dim]`` for comparing embeddings on equal terms."""
    stream = torch.Generator().manual_seed(seed ^ _EVALUATION)
    return torch.randn(count, latent_dim, generator=stream).to(device)


@torch.no_grad()
def sample_images(
    generator: Generator, embedding: Tensor, latents: Tensor, images_per_pass: int = 10
) -> Tensor:
    """Images ``[N, 3, R, R]`` of one embedding ``[E]`` at latents ``[N, D]``, kept on the CPU."""
    rows = embedding[None].to(latents.device)
    parts = [generator(rows, part[None]).float().cpu() for part in latents.split(images_per_pass)]
    return torch.cat(parts)


@torch.no_grad()
def score_embedding(
    generator: Generator,
    objective: TargetLogProb,
    embedding: Tensor,
    class_id: int,
    *,
    seed: int,
    images: int = 100,
    pairs: int = 200,
) -> EmbeddingScore:
    """Score one embedding ``[E]`` for target ``class_id``."""
    device = generator.class_embeddings.device
    latents = evaluation_latents(images, generator.spec.latent_dim, seed, device)
    pictures = sample_images(generator, embedding, latents).to(device)
    judged = [
        objective.with_top1(part, torch.full((len(part),), class_id, device=device))
        for part in pictures.split(10)
    ]
    log_probs, top1 = (torch.cat(parts) for parts in zip(*judged, strict=True))
    drawn = random_pairs(images, pairs, seed)
    return EmbeddingScore(
        target_prob=float(log_probs.exp().mean()),
        accuracy=float((top1 == class_id).double().mean()),
        distance=float(pooled_distance(pictures, drawn).mean()),
        ms_ssim=float(pairwise_ms_ssim(pictures, drawn).mean()),
        images=images,
        pairs=pairs,
    )
