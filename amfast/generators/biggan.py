"""Load BigGAN checkpoints: a state_dict under the published key names -> a frozen generator."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from amfast.errors import WeightsError
from amfast.generators.family import FrozenGenerator, fill
from amfast.generators.frozen import FrozenBigGAN
from amfast.generators.reference import BigGAN, BigGANConfig


def infer_config(
    state: Mapping[str, Tensor], *, norm_eps: float = 1e-4, spectral_eps: float = 1e-4
) -> BigGANConfig:
    """Read the architecture off the tensors' shapes.

    Raises ``WeightsError`` where the tensors are not those of a BigGAN. The two eps values are not
    in a checkpoint; the defaults are those of the converted 128 and 256 models.
    """
    try:
        blocks = len([k for k in state if re.fullmatch(r"blocks\.\d+\.0\.conv1\.weight", k)])
        fan_ins = [state[f"blocks.{i}.0.conv1.weight"].shape[1] for i in range(blocks)]
        last = state[f"blocks.{max(blocks, 1) - 1}.0.conv1.weight"].shape[0]
        (attention,) = (int(k.split(".")[1]) for k in state if k.endswith(".1.gamma"))
        num_classes, embedding_dim = state["shared.weight"].shape
        return BigGANConfig(
            widths=(*fan_ins, last),
            attention_block=attention,
            num_classes=num_classes,
            embedding_dim=embedding_dim,
            chunk_dim=state["linear.weight"].shape[1],
            norm_eps=norm_eps,
            spectral_eps=spectral_eps,
        )
    except (KeyError, ValueError, IndexError) as error:
        raise WeightsError(
            "these weights are not a BigGAN generator's: a key such as 'shared.weight', "
            f"'linear.weight' or 'blocks.0.0.conv1.weight' is missing or misshapen ({error})"
        ) from None


def load_reference(state: Mapping[str, Tensor], config: BigGANConfig) -> BigGAN:
    """The plain model with these weights, in evaluation mode. Only ``*.sv0`` keys may be absent.

    Raises ``WeightsError`` listing the keys that are missing, unexpected, misshapen or not finite.
    """
    with torch.device("meta"):
        model = BigGAN(config)
    return fill(model, state, f"a BigGAN of {config.resolution} px", may_lack=".sv0")


class BigGANGenerator(FrozenGenerator):
    """A frozen BigGAN that meets the ``Generator`` protocol.

    ``truncation`` scales the latents (Brock et al., section 3.1).
    """

    def __init__(
        self,
        model: BigGAN,
        *,
        name: str,
        labels: Sequence[str],
        device: torch.device,
        dtype: torch.dtype,
        truncation: float = 1.0,
    ) -> None:
        super().__init__(
            model,
            FrozenBigGAN(model, dtype, device),
            model.shared.weight,
            name=name,
            labels=labels,
            truncation=truncation,
        )
