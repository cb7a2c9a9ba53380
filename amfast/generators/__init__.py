"""Class-conditional generators: embeddings and latents in, images out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from amfast.config import DtypeName
from amfast.device import resolve_device, resolve_dtype
from amfast.errors import UsageError, WeightsError
from amfast.generators.biggan import BigGANGenerator, infer_config, load_reference
from amfast.generators.protocol import Generator, GeneratorSpec

EMBEDDED = Path(__file__).parent.parent / "embedded"

__all__ = ["BigGANGenerator", "Generator", "GeneratorSpec", "load_generator"]


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file; ``WeightsError`` where it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot read weights from {path}: {error}") from None


def read_labels(metadata: Mapping[str, str], path: Path) -> list[str]:
    """The class names in a file's metadata, none where it has no ``labels``.

    Raises ``WeightsError`` where they are not a JSON list of strings.
    """
    try:
        labels = json.loads(metadata.get("labels", "[]"))
    except ValueError as error:
        raise WeightsError(f"{path}: its labels cannot be read: {error}") from None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise WeightsError(f"{path}: its labels should be a JSON list of names")
    return labels


def load_generator(
    name: str,
    *,
    weights: str | Path | None = None,
    device: str | torch.device = "auto",
    dtype: DtypeName = "auto",
    truncation: float = 1.0,
) -> BigGANGenerator:
    """Load a frozen generator.

    ``name`` is ``"embedded"``; ``weights`` replaces the file that ships with the package by another
    BigGAN in safetensors form, under the published key names (metadata ``labels``, a JSON list,
    names its classes; ``norm_eps`` and ``spectral_eps`` its eps values). ``truncation`` in (0, 1]
    scales the latents. Raises ``UsageError`` for an unknown name or a bad truncation and
    ``WeightsError`` for a file that is not such a BigGAN.
    """
    if name != "embedded":
        raise UsageError(f"unknown generator {name!r}: this version knows embedded")
    if not 0 < truncation <= 1:
        raise UsageError(f"truncation must lie in (0, 1], given {truncation}")
    target = resolve_device(device)
    path = EMBEDDED / "generator.safetensors" if weights is None else Path(weights)
    state, metadata = read_safetensors(path)
    try:
        eps = {key: float(metadata.get(key, 1e-4)) for key in ("norm_eps", "spectral_eps")}
    except ValueError as error:
        raise WeightsError(f"the metadata of {path} cannot be read: {error}") from None
    config = infer_config(state, **eps)
    model = load_reference(state, config)
    labels = read_labels(metadata, path) or [str(i) for i in range(config.num_classes)]
    if len(labels) != config.num_classes:
        raise WeightsError(f"{path} names {len(labels)} classes and holds {config.num_classes}")
    return BigGANGenerator(
        model,
        name=name if weights is None else path.stem,
        labels=tuple(labels),
        device=target,
        dtype=resolve_dtype(dtype, target),
        truncation=truncation,
    )
