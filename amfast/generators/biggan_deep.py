"""Load BigGAN-deep checkpoints: a state_dict under the published names -> a frozen generator."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from amfast.config import TruncationStats
from amfast.errors import WeightsError
from amfast.generators.family import FrozenGenerator, fill
from amfast.generators.frozen_deep import FrozenBigGANDeep
from amfast.generators.reference_deep import BigGANDeep, BigGANDeepConfig

#: The key by which a file of this family is known.
EMBEDDINGS_KEY = "embeddings.weight"


def infer_deep_config(state: Mapping[str, Tensor], *, norm_eps: float = 1e-4) -> BigGANDeepConfig:
    """Read the architecture off the tensors' shapes.

    Raises ``WeightsError`` where the tensors are not those of a BigGAN-deep. ``norm_eps`` is not in
    a checkpoint; the default is that of the published models.
    """
    try:
        layers = [
            int(k.split(".")[2])
            for k in state
            if re.fullmatch(r"generator\.layers\.\d+\.conv_0\.weight_orig", k)
        ]
        blocks = [f"generator.layers.{i}" for i in sorted(layers)]
        (attention,) = (int(k.split(".")[2]) for k in state if k.endswith(".gamma"))
        widths = (
            state[f"{blocks[0]}.conv_0.weight_orig"].shape[1],
            *(state[f"{block}.conv_3.weight_orig"].shape[0] for block in blocks[1::2]),
        )
        embedding_dim, num_classes = state[EMBEDDINGS_KEY].shape
        _, cond_dim = state["generator.gen_z.weight_orig"].shape
        statistics, _ = state["generator.bn.running_means"].shape
    except (KeyError, ValueError, IndexError) as error:
        raise WeightsError(
            f"these weights are not a BigGAN-deep generator's: a key such as {EMBEDDINGS_KEY!r}, "
            "'generator.gen_z.weight_orig' or 'generator.layers.0.conv_0.weight_orig' is missing "
            f"or misshapen ({error})"
        ) from None
    if min(widths) < 4 or any(out not in (width, width // 2) for width, out in pairwise(widths)):
        raise WeightsError(
            f"these weights are not a BigGAN-deep generator's: its stages have {list(widths)} "
            "channels; each must have as many as the one before or half of them, and 4 or more"
        )
    if cond_dim <= embedding_dim or statistics < 2:
        raise WeightsError(
            f"these weights are not a BigGAN-deep generator's: cond vectors of {cond_dim} numbers, "
            f"of which the embedding has {embedding_dim}, must leave some to the latent, and "
            f"{statistics} rows of statistics must be two or more"
        )
    return BigGANDeepConfig(
        widths=widths,
        attention_stage=attention // 2 - 1,
        num_classes=num_classes,
        embedding_dim=embedding_dim,
        latent_dim=cond_dim - embedding_dim,
        statistics=statistics,
        norm_eps=norm_eps,
    )


def load_deep_reference(state: Mapping[str, Tensor], config: BigGANDeepConfig) -> BigGANDeep:
    """The plain model with these weights, in evaluation mode.

    Raises ``WeightsError`` listing the keys that are missing, unexpected, misshapen or not finite.
    """
    with torch.device("meta"):
        model = BigGANDeep(config)
    return fill(model, state, f"a BigGAN-deep of {config.resolution} px")


class BigGANDeepGenerator(FrozenGenerator):
    """A frozen BigGAN-deep that meets the ``Generator`` protocol.

    ``truncation`` scales the latents and selects the batch-norm statistics, between whose rows
    ``truncation_stats`` says how to interpolate (``reference_deep.statistics_weights``).
    """

    def __init__(
        self,
        model: BigGANDeep,
        *,
        name: str,
        labels: Sequence[str],
        device: torch.device,
        dtype: torch.dtype,
        truncation: float = 1.0,
        truncation_stats: TruncationStats = "upstream",
    ) -> None:
        super().__init__(
            model,
            FrozenBigGANDeep(
                model, dtype, device, truncation=truncation, truncation_stats=truncation_stats
            ),
            model.class_embeddings,
            name=name,
            labels=labels,
            truncation=truncation,
        )
