from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from torch import nn

from amfast.generators.reference import BigGAN, BigGANConfig
from amfast.generators.reference_deep import BigGANDeep, BigGANDeepConfig, StoredSpectralNorm

CONFIGS = {
    "embedded": BigGANConfig(
        widths=(128, 80, 32, 16, 16), attention_block=1, num_classes=12, chunk_dim=4
    ),
    "128-narrow": BigGANConfig(
        widths=(64, 64, 32, 16, 8, 8), attention_block=3, num_classes=10, chunk_dim=20
    ),
    "one-block": BigGANConfig(
        widths=(16, 8), attention_block=0, num_classes=2, embedding_dim=7, chunk_dim=3
    ),
}


def deep_config(ch: int, *units: int, num_classes: int = 1000) -> BigGANDeepConfig:
    """A published BigGAN-deep, at ``ch`` channels per unit instead of 128."""
    return BigGANDeepConfig(
        tuple(ch * u for u in units), attention_stage=3, num_classes=num_classes
    )


DEEP_UNITS = {
    "128": (16, 16, 8, 4, 2, 1),
    "256": (16, 16, 8, 8, 4, 2, 1),
    "512": (16, 16, 8, 8, 4, 2, 1, 1),
}
DEEP_CONFIGS = {
    **{f"{k}-narrow": deep_config(4, *u, num_classes=5) for k, u in DEEP_UNITS.items()},
    "one-stage": BigGANDeepConfig(
        widths=(16, 8),
        attention_stage=0,
        num_classes=2,
        embedding_dim=7,
        latent_dim=3,
        statistics=3,
    ),
}
_Model = TypeVar("_Model", bound=nn.Module)


def random_weights(make: Callable[[], _Model], seed: int = 0) -> _Model:
    """A model whose statistics, gate and output norm are far from their neutral values.

    Built without its own initialisation, which takes half a minute at full width.
    """
    with torch.device("meta"):
        model = make()
    model.to_empty(device="cpu")
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("stored_var", "running_vars")):
                tensor.uniform_(0.5, 2.0)
            elif name.endswith("gamma"):
                tensor.fill_(0.7)
            elif name.endswith(("0.gain", "bn.weight")):  # the output's
                tensor.normal_(1, 0.2)
            elif tensor.dim() == 1:
                tensor.normal_(0, 0.2)
            elif name.startswith(("shared", "embeddings")) or name.endswith("_means"):
                tensor.normal_(0, 0.3)
            else:
                tensor.normal_()
        for module in model.modules():
            if isinstance(module, StoredSpectralNorm):  # else u^T W v may be next to nothing
                matrix = module.weight_orig.flatten(1)
                v = module.weight_u @ matrix
                module.weight_v.copy_(v / v.norm())
                u = matrix @ module.weight_v
                module.weight_u.copy_(u / u.norm())
    return model.eval().requires_grad_(False)


def random_biggan(config: BigGANConfig, seed: int = 0) -> BigGAN:
    return random_weights(lambda: BigGAN(config), seed)


def random_deep(config: BigGANDeepConfig, seed: int = 0) -> BigGANDeep:
    return random_weights(lambda: BigGANDeep(config), seed)


@pytest.fixture(params=list(CONFIGS))
def biggan(request: pytest.FixtureRequest) -> BigGAN:
    return random_biggan(CONFIGS[request.param])


@pytest.fixture(params=list(DEEP_CONFIGS))
def deep(request: pytest.FixtureRequest) -> BigGANDeep:
    return random_deep(DEEP_CONFIGS[request.param])
