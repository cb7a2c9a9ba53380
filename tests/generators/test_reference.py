"""The plain BigGAN against what is published: key names, sizes, and its own definitions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from amfast.generators.reference import BigGAN, BigGANConfig, CondBatchNorm, SNConv2d, SNLinear

CH = 96


@pytest.mark.parametrize(
    ("widths", "attention", "keys", "parameters"),
    [
        ((16, 16, 8, 4, 2, 1), 3, 166, 70_433_988),
        ((16, 16, 8, 8, 4, 2, 1), 4, 194, 82_097_604),
    ],
)
def test_published_sizes(
    widths: tuple[int, ...], attention: int, keys: int, parameters: int
) -> None:
    config = BigGANConfig(
        widths=tuple(CH * w for w in widths), attention_block=attention, num_classes=1000
    )
    with torch.device("meta"):
        model = BigGAN(config)
    state = model.state_dict()
    assert len(state) == keys
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert config.resolution == 2 ** (len(widths) + 1)
    assert config.latent_dim == 20 * len(widths)
    for key in (
        "shared.weight",
        "linear.u0",
        "blocks.0.0.conv_sc.sv0",
        f"blocks.{attention}.1.gamma",
        f"blocks.{attention}.1.theta.weight",
        "blocks.1.0.bn2.gain.u0",
        "blocks.1.0.bn2.stored_var",
        "output_layer.0.gain",
        "output_layer.2.bias",
    ):
        assert key in state


def test_spectral_norm_converges_to_the_largest_singular_value() -> None:
    torch.manual_seed(0)
    conv = SNConv2d(5, 7, 3, eps=1e-12)
    with torch.no_grad():
        conv.weight.normal_()
    conv.train()
    for _ in range(200):
        conv.normalized_weight()
    largest = torch.linalg.matrix_norm(conv.normalized_weight().flatten(1), 2)
    assert largest.item() == pytest.approx(1, abs=1e-4)
    assert conv.sv0.item() == pytest.approx(
        torch.linalg.matrix_norm(conv.weight.flatten(1), 2).item(), rel=1e-4
    )


def test_evaluation_takes_one_power_iteration_and_keeps_u0() -> None:
    torch.manual_seed(0)
    linear = SNLinear(5, 7, eps=1e-4).eval()
    before = linear.u0.clone()
    v = F.normalize(before @ linear.weight)
    sigma = (v @ linear.weight.t()).norm()
    torch.testing.assert_close(linear.normalized_weight(), linear.weight / sigma)
    assert torch.equal(linear.u0, before)


def test_gain_is_one_plus_a_linear_map() -> None:
    torch.manual_seed(0)
    norm = CondBatchNorm(3, 4, eps=1e-4, spectral_eps=1e-4).eval()
    x, zero = torch.randn(2, 3, 5, 5), torch.zeros(2, 4)
    torch.testing.assert_close(norm(x, zero), x / (1 + 1e-4) ** 0.5)


def test_images_are_in_range_and_training_moves_the_statistics(biggan: BigGAN) -> None:
    config = biggan.config
    z = torch.randn(3, config.latent_dim)
    images = biggan(biggan.shared(torch.tensor([0, 1, 1])), z)
    assert images.shape == (3, 3, config.resolution, config.resolution)
    assert images.abs().max() <= 1
    before = biggan.state_dict()["blocks.0.0.bn1.stored_mean"].clone()
    biggan.train()(biggan.shared(torch.tensor([0, 1, 1])), z)
    assert not torch.equal(before, biggan.state_dict()["blocks.0.0.bn1.stored_mean"])
