"""A trial: one embedding's optimisation, and the randomness that belongs to it alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, order=True)
class Trial:
    """Identified by its target class, its index among that class's trials, and the run's seed."""

    class_id: int
    index: int
    seed: int

    def random(self, purpose: str, number: int = 0) -> torch.Generator:
        """A stream keyed by (seed, class, trial, purpose, number), never by batch position."""
        key = f"{self.seed}/{self.class_id}/{self.index}/{purpose}/{number}".encode()
        digest = hashlib.blake2b(key, digest_size=8).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def plan_trials(class_ids: Sequence[int], trials: int, seed: int) -> list[Trial]:
    """Every trial of a run, class by class."""
    return [Trial(class_id, index, seed) for class_id in class_ids for index in range(trials)]


def draw_latents(
    trials: Sequence[Trial],
    resamples: Sequence[int],
    count: int,
    latent_dim: int,
    device: torch.device,
) -> Tensor:
    """Standard normal latents ``[T, count, latent_dim]``, each row from its trial's own stream.

    ``resamples`` says, for each trial, how many times it has drawn before: the same number gives
    the same latents. Drawn on the CPU so that every device sees the same numbers.
    """
    rows = [
        torch.randn(count, latent_dim, generator=trial.random("latents", resample))
        for trial, resample in zip(trials, resamples, strict=True)
    ]
    return torch.stack(rows).to(device, non_blocking=True)


def draw_shared_latents(
    seed: int, resamples: Sequence[int], count: int, latent_dim: int, device: torch.device
) -> Tensor:
    """The same, but every trial sees the latents of one stream, as in the released code.

    Those of resample r are the r-th ``torch.randn(count, latent_dim)``, counted from zero, after
    ``torch.manual_seed(seed)``.
    """
    stream = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(count, latent_dim, generator=stream) for _ in range(max(resamples) + 1)]
    return torch.stack([drawn[resample] for resample in resamples]).to(device, non_blocking=True)
