from __future__ import annotations

import pytest

from amfast.generators.architectures import random_biggan, random_deep
from amfast.generators.reference import BigGAN, BigGANConfig
from amfast.generators.reference_deep import BigGANDeep, BigGANDeepConfig

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


@pytest.fixture(params=list(CONFIGS))
def biggan(request: pytest.FixtureRequest) -> BigGAN:
    return random_biggan(CONFIGS[request.param])


@pytest.fixture(params=list(DEEP_CONFIGS))
def deep(request: pytest.FixtureRequest) -> BigGANDeep:
    return random_deep(DEEP_CONFIGS[request.param])
