from __future__ import annotations

import pytest
import torch
from torch import nn

from amfast.generators.reference import BigGAN, BigGANConfig, StoredStatistics

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


def random_biggan(config: BigGANConfig, seed: int = 0) -> BigGAN:
    """A BigGAN whose statistics, gate and output norm are far from their neutral values."""
    torch.manual_seed(seed)
    model = BigGAN(config)
    for module in model.modules():
        if isinstance(module, StoredStatistics):
            module.stored_mean.normal_(0, 0.3)
            module.stored_var.uniform_(0.5, 2.0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(0.7)
            elif parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
        nn.init.normal_(model.shared.weight, std=0.3)
    return model.eval().requires_grad_(False)


@pytest.fixture(params=list(CONFIGS))
def biggan(request: pytest.FixtureRequest) -> BigGAN:
    return random_biggan(CONFIGS[request.param])
