"""A model's weights with new class embeddings in them, as its own programs load them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from amfast.errors import RunError
from amfast.generators.biggan_deep import EMBEDDINGS_KEY, infer_deep_config

#: Where a BigGAN of the BigGAN-PyTorch repository has its class embeddings, ``[num_classes, E]``.
SHARED_KEY = "shared.weight"


def with_rows(table: Tensor, embeddings: Tensor, rows: Sequence[int]) -> Tensor:
    """``table`` ``[N, E]`` with ``embeddings`` ``[K, E]`` in these rows, new ones from N on."""
    longer = table.new_empty(max(len(table), 1 + max(rows)), table.shape[1])
    longer[: len(table)] = table
    longer[list(rows)] = embeddings.to(table)
    return longer


def patch_biggan(
    state: Mapping[str, Tensor], embeddings: Tensor, rows: Sequence[int]
) -> dict[str, Tensor]:
    """A BigGAN's state_dict with ``embeddings`` in ``rows``; ``RunError`` for another family's."""
    if SHARED_KEY not in state:
        raise RunError(
            "these weights are not a BigGAN's, which have a 'shared.weight': "
            "a BigGAN-deep goes out with --format pytorch-pretrained-biggan"
        )
    return {**state, SHARED_KEY: with_rows(state[SHARED_KEY], embeddings, rows)}


def patch_biggan_deep(
    state: Mapping[str, Tensor], embeddings: Tensor, rows: Sequence[int]
) -> dict[str, Tensor]:
    """The same for a BigGAN-deep, whose classes are columns."""
    if EMBEDDINGS_KEY not in state:
        raise RunError(
            f"these weights are not a BigGAN-deep's, which have an {EMBEDDINGS_KEY!r}: "
            "a BigGAN goes out with --format biggan-pytorch"
        )
    table = with_rows(state[EMBEDDINGS_KEY].t(), embeddings, rows)
    return {**state, EMBEDDINGS_KEY: table.t().contiguous()}


def deep_config(state: Mapping[str, Tensor], norm_eps: float) -> dict[str, Any]:
    """``config.json`` of the pytorch-pretrained-biggan package for these weights.

    Raises ``RunError`` for a BigGAN-deep that the package cannot build: its widths are fixed
    multiples of ``channel_width`` at both ends, and its latents as wide as its embeddings.
    """
    config = infer_deep_config(state, norm_eps=norm_eps)
    unit, last = config.widths[-1], config.num_stages - 1
    if (
        config.widths[0] != 16 * unit
        or any(width % unit for width in config.widths)
        or config.latent_dim != config.embedding_dim
        or config.attention_stage == last
    ):
        raise RunError(
            "pytorch-pretrained-biggan cannot build this BigGAN-deep: it needs 16 times as many "
            "channels at the first stage as at the last, latents as wide as the embeddings and "
            f"attention before the last stage; this one has {list(config.widths)} channels, "
            f"latents of {config.latent_dim}, embeddings of {config.embedding_dim} and attention "
            f"after stage {config.attention_stage} of 0 to {last}"
        )
    layers: list[list[bool | int]] = []
    for fan_in, fan_out in pairwise(width // unit for width in config.widths):
        layers += [[False, fan_in, fan_in], [True, fan_in, fan_out]]
    return {
        "output_dim": config.resolution,
        "z_dim": config.latent_dim,
        "class_embed_dim": config.embedding_dim,
        "channel_width": unit,
        "num_classes": config.num_classes,
        "layers": layers,
        "attention_layer_position": 2 * (config.attention_stage + 1),
        "eps": norm_eps,
        "n_stats": config.statistics,
    }


def saved(state: Mapping[str, Tensor]) -> bytes:
    """What ``torch.save`` writes: tensors alone, so that any ``torch.load`` reads them safely."""
    buffer = io.BytesIO()
    torch.save({name: tensor.contiguous() for name, tensor in state.items()}, buffer)
    return buffer.getvalue()
