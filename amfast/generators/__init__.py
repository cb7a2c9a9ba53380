"""Class-conditional generators: embeddings and latents in, images out."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from amfast.config import DtypeName
from amfast.device import resolve_device, resolve_dtype
from amfast.embedded import EMBEDDED
from amfast.errors import UsageError, WeightsError
from amfast.generators.biggan import BigGANGenerator, infer_config, load_reference
from amfast.generators.biggan_deep import (
    EMBEDDINGS_KEY,
    BigGANDeepGenerator,
    infer_deep_config,
    load_deep_reference,
)
from amfast.generators.family import FrozenGenerator
from amfast.generators.protocol import Generator, GeneratorSpec
from amfast.generators.reference_deep import TruncationStats, check_truncation
from amfast.weights.files import read_labels, read_safetensors

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
) -> FrozenGenerator:
    """Load a frozen generator.

    ``name`` is ``"embedded"``; ``weights`` replaces the file that ships with the package by another
    BigGAN or a BigGAN-deep in safetensors form, under the published key names, by which the family
    is known (metadata ``labels``, a JSON list, names its classes; ``norm_eps`` and, for BigGAN,
    ``spectral_eps`` its eps values). ``truncation`` in (0, 1] scales the latents; in BigGAN-deep it
    also selects batch-norm statistics, by the rule ``truncation_stats``, which BigGAN has no use
    for: ``"upstream"`` as the published package does, ``"exact"`` linearly. Raises ``UsageError``
    for an unknown name, truncation or rule and ``WeightsError`` for a file that is neither.
    """
    if name != "embedded":
        raise UsageError(f"unknown generator {name!r}: this version knows embedded")
    check_truncation(truncation, truncation_stats)
    target = resolve_device(device)
    path = EMBEDDED / "generator.safetensors" if weights is None else Path(weights)
    state, metadata = read_safetensors(path)
    try:
        eps = {key: float(metadata.get(key, 1e-4)) for key in ("norm_eps", "spectral_eps")}
    except ValueError as error:
        raise WeightsError(f"the metadata of {path} cannot be read: {error}") from None
    for key, value in eps.items():
        if not 0 <= value < math.inf:
            raise WeightsError(
                f"{path}: its {key} is {value}, expected a small number such as 1e-4"
            )
    labels = read_labels(metadata, path)
    shown, precision = name if weights is None else path.stem, resolve_dtype(dtype, target)
    if EMBEDDINGS_KEY in state:
        deep = load_deep_reference(state, infer_deep_config(state, norm_eps=eps["norm_eps"]))
        return BigGANDeepGenerator(
            deep,
            name=shown,
            labels=_named(labels, deep.config.num_classes, path),
            device=target,
            dtype=precision,
            truncation=truncation,
            truncation_stats=truncation_stats,
        )
    model = load_reference(state, infer_config(state, **eps))
    return BigGANGenerator(
        model,
        name=shown,
        labels=_named(labels, model.config.num_classes, path),
        device=target,
        dtype=precision,
        truncation=truncation,
    )


def _named(labels: list[str], num_classes: int, path: Path) -> list[str]:
    """One name per class: ``labels``, or numbers where there are none."""
    if labels and len(labels) != num_classes:
        raise WeightsError(f"{path} names {len(labels)} classes and holds {num_classes}")
    return labels or [str(i) for i in range(num_classes)]
