"""BigGAN-deep against the published pytorch-pretrained-biggan package, forward and gradient."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from amfast.exchange.models import deep_config
from amfast.generators.architectures import ARCHITECTURES, random_deep
from amfast.generators.frozen_deep import FrozenBigGANDeep
from amfast.generators.reference_deep import BigGANDeep, BigGANDeepConfig

CPU = torch.device("cpu")


def packages(model: BigGANDeep, dtype: torch.dtype) -> Any:
    """The package's generator with all of its tensors filled from ours."""
    package = pytest.importorskip("pytorch_pretrained_biggan")
    config = package.BigGANConfig(**deep_config(model.state_dict(), model.config.norm_eps))
    theirs = package.BigGAN(config)
    theirs.load_state_dict(model.state_dict())
    return theirs.eval().to(dtype).requires_grad_(False)


def gradient(images: Tensor, leaf: Tensor) -> tuple[Tensor, Tensor]:
    weights = torch.randn(images.shape, generator=torch.Generator().manual_seed(1)).to(images)
    (found,) = torch.autograd.grad((images * weights).sum(), leaf)
    return images.detach(), found


@pytest.mark.parametrize("truncation", [0.4, 1.0])
@pytest.mark.parametrize(
    ("config", "dtype"),
    [
        (replace(ARCHITECTURES["biggan-deep-128"], num_classes=5), torch.float32),
        (BigGANDeepConfig((128, 128, 64, 32, 16, 8), 3, num_classes=5), torch.float64),
    ],
    ids=["full width, fp32", "narrow, float64"],
)
def test_forward_and_gradient_equal_the_packages(
    config: BigGANDeepConfig, dtype: torch.dtype, truncation: float
) -> None:
    """Within 1e-12 in float64; in fp32 within 1e-5 or twice the package's own error.

    Rounding decides on which side of a relu or a max-pooling a number falls, so that a gradient in
    fp32 may be further off than its digits are, the package's as well.
    """
    model = random_deep(config)
    random = torch.Generator().manual_seed(0)
    z = truncation * torch.randn(1, 1, config.latent_dim, generator=random)
    row = model.class_embeddings[:1].clone()

    def of_package(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        leaf = row.to(dtype).requires_grad_()
        cond = torch.cat([z[0].to(dtype), leaf], dim=1)
        return gradient(packages(model, dtype).generator(cond, truncation), leaf)

    leaf = row.to(dtype).requires_grad_()
    frozen = FrozenBigGANDeep(model, dtype, CPU, truncation=truncation, truncation_stats="upstream")
    ours = gradient(frozen(leaf, z.to(dtype)), leaf)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for mine, theirs, exact in zip(ours, of_package(dtype), of_package(torch.float64), strict=True):
        scale = exact.abs().max()
        bound = max(tolerance, 2 * float((theirs - exact).abs().max() / scale))
        assert float((mine - exact).abs().max() / scale) <= bound
