"""Class-conditional generators: embeddings and latents in, images out."""

from __future__ import annotations

from pathlib import Path

import torch

from amfast.config import DtypeName, EpsProfile, TruncationStats
from amfast.device import resolve_device, resolve_dtype
from amfast.generators.biggan import BigGANGenerator
from amfast.generators.biggan_deep import BigGANDeepGenerator
from amfast.generators.family import FrozenGenerator
from amfast.generators.protocol import Generator, GeneratorSpec
from amfast.generators.reference import BigGAN
from amfast.generators.reference_deep import check_truncation
from amfast.generators.sources import load_plain

__all__ = [
    "BigGANDeepGenerator",
    "BigGANGenerator",
    "FrozenGenerator",
    "Generator",
    "GeneratorSpec",
    "load_generator",
]


def load_generator(
    name: str,
    *,
    weights: str | Path | None = None,
    device: str | torch.device = "auto",
    dtype: DtypeName = "auto",
    truncation: float = 1.0,
    truncation_stats: TruncationStats = "upstream",
    eps: EpsProfile = "auto",
) -> FrozenGenerator:
    """Load a frozen generator.

    Args:
        name: ``"embedded"``, which ships with the package, or a published architecture:
            ``"biggan-128"``, ``"biggan-256"``, ``"biggan-deep-128"``, ``"biggan-deep-256"``,
            ``"biggan-deep-512"``.
        weights: a file under the published key names, in safetensors form or of ``torch.save``; for
            BigGAN-deep also a directory with ``pytorch_model.bin`` and ``config.json``; or
            ``"random"`` for seeded random weights, to try speed and plumbing. Under ``"embedded"``
            a file may be of any shape, and its keys say which family it is of; under the other
            names it must have the published shape, with any number of classes. The metadata of a
            safetensors file may hold ``labels``, a JSON list that names the classes, ``norm_eps``
            and, for BigGAN, ``spectral_eps``.
        truncation: in (0, 1], scales the latents; in BigGAN-deep it also selects batch-norm
            statistics.
        truncation_stats: how it does: ``"upstream"`` as the published package, ``"exact"``
            linearly. BigGAN has no use for it.
        eps: BigGAN's eps values, which no checkpoint holds: ``"biggan-am"`` (1e-4 and 1e-4) or
            ``"training"`` (1e-5 and 1e-6); ``"auto"`` takes the file's metadata or else
            ``"training"`` for biggan-128 and ``"biggan-am"`` for the others.

    Raises:
        UsageError: an unknown name, truncation, rule or profile, or random weights for "embedded".
        WeightsError: a file that is missing, damaged, not a generator's, of another architecture
            than ``name``, or that would run code; keys that are missing, unexpected, misshapen or
            not finite are listed (``*.sv0`` alone may be absent).
    """
    check_truncation(truncation, truncation_stats)
    target = resolve_device(device)
    plain = load_plain(name, weights, eps)
    model, precision = plain.model, resolve_dtype(dtype, target)
    if isinstance(model, BigGAN):
        return BigGANGenerator(
            model,
            name=plain.name,
            labels=plain.labels,
            device=target,
            dtype=precision,
            truncation=truncation,
        )
    return BigGANDeepGenerator(
        model,
        name=plain.name,
        labels=plain.labels,
        device=target,
        dtype=precision,
        truncation=truncation,
        truncation_stats=truncation_stats,
    )
