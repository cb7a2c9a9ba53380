"""The plain BigGAN-deep against what is published: key names, sizes, and its statistics' rows."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from amfast.errors import UsageError
from amfast.generators.architectures import random_deep
from amfast.generators.reference_deep import (
    BigGANDeep,
    BigGANDeepConfig,
    Bottleneck,
    DeepCondBatchNorm,
    DeepConv2d,
    statistics_weights,
)
from tests.generators.conftest import DEEP_CONFIGS, DEEP_UNITS, deep_config


@pytest.mark.parametrize(
    ("name", "keys", "parameters"),
    [("128", 506, 50_388_609), ("256", 602, 55_880_833), ("512", 698, 56_163_905)],
)
def test_published_sizes(name: str, keys: int, parameters: int) -> None:
    config = deep_config(128, *DEEP_UNITS[name])
    with torch.device("meta"):
        model = BigGANDeep(config)
    state = model.state_dict()
    assert len(state) == keys
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert config.resolution == int(name)
    for key, shape in (
        ("embeddings.weight", [128, 1000]),
        ("generator.gen_z.weight_orig", [32768, 256]),
        ("generator.layers.0.bn_0.running_means", [51, 2048]),
        ("generator.layers.0.bn_3.offset.weight_v", [256]),
        ("generator.layers.1.conv_1.bias", [512]),
        ("generator.layers.8.gamma", [1]),
        ("generator.layers.8.snconv1x1_o_conv.weight_u", [512 if name != "128" else 256]),
        ("generator.bn.weight", [128]),
        ("generator.conv_to_rgb.weight_orig", [128, 128, 3, 3]),
    ):
        assert list(state[key].shape) == shape


@pytest.mark.parametrize(
    ("truncation", "stats", "rows"),
    [
        (1.0, "upstream", {50: 1.0}),
        (1.0, "exact", {50: 1.0}),
        (0.02, "exact", {1: 1.0}),
        (0.4, "upstream", {20: 1.0}),
        (0.58, "exact", {29: 1.0}),
        (0.58, "upstream", {28: 1.0}),  # 0.58 / 0.02 is rounded down
        (0.409, "exact", {20: 0.55, 21: 0.45}),
        (0.409, "upstream", {20: 0.45, 21: 0.55}),  # reversed, as published
        (0.01, "exact", {0: 0.5, 1: 0.5}),
    ],
)
def test_rows_of_statistics(
    truncation: float, stats: Literal["upstream", "exact"], rows: dict[int, float]
) -> None:
    expected = torch.zeros(51, dtype=torch.float64)
    for row, weight in rows.items():
        expected[row] = weight
    found = statistics_weights(truncation, stats, 51)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rows", [2, 3, 50, 51, 99])
def test_full_truncation_is_the_last_row(rows: int) -> None:
    expected = [0.0] * (rows - 1) + [1.0]
    assert statistics_weights(1.0, "upstream", rows).tolist() == expected
    assert statistics_weights(1.0, "exact", rows).tolist() == expected


@pytest.mark.parametrize("truncation", [0.0, -0.5, 1.01, float("nan")])
def test_a_truncation_out_of_range_is_refused(truncation: float) -> None:
    with pytest.raises(UsageError, match="truncation must lie in"):
        statistics_weights(truncation, "exact", 51)


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(UsageError, match="truncation_stats is 'nearest'"):
        statistics_weights(0.5, "nearest", 51)  # type: ignore[arg-type]


def test_spectral_norm_divides_by_the_stored_estimate() -> None:
    conv = DeepConv2d(5, 7, 3)
    with torch.no_grad():
        conv.weight_orig.normal_()
        u, s, vt = torch.linalg.svd(conv.weight_orig.flatten(1), full_matrices=False)
        conv.weight_u.copy_(u[:, 0])
        conv.weight_v.copy_(vt[0])
    torch.testing.assert_close(conv.normalized_weight(), conv.weight_orig / s[0])


def test_gain_is_one_plus_a_linear_map() -> None:
    config = BigGANDeepConfig((3, 3), 0, 2, embedding_dim=4, latent_dim=2, statistics=3)
    norm = DeepCondBatchNorm(3, config)
    norm.running_vars[1] = 4.0
    x, zero = torch.randn(2, 3, 5, 5), torch.zeros(2, 6)
    halfway = statistics_weights(0.5, "exact", 3)
    torch.testing.assert_close(norm(x, zero, halfway), x / (4 + 1e-4) ** 0.5)


def test_a_block_without_its_main_path_keeps_the_first_channels() -> None:
    block = Bottleneck(8, 4, DEEP_CONFIGS["one-stage"], upsample=True)
    block.conv_3.weight_u.mul_(1e30)  # which divides its weight
    x, weights = torch.randn(1, 8, 2, 2), statistics_weights(1.0, "exact", 3)
    out = block(x, torch.randn(1, 10), weights)
    kept = x[:, :4].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(out, kept)


def test_images_are_in_range(deep: BigGANDeep) -> None:
    config = deep.config
    images = deep(deep.class_embeddings[:2], torch.randn(2, config.latent_dim))
    assert images.shape == (2, 3, config.resolution, config.resolution)
    assert images.abs().max() <= 1


def test_the_embedding_and_the_latent_both_count() -> None:
    model = random_deep(DEEP_CONFIGS["one-stage"])
    embeddings, z = model.class_embeddings, torch.randn(2, model.config.latent_dim)
    images = model(embeddings, z)
    assert not torch.allclose(model(embeddings.flip(0), z), images)
    assert not torch.allclose(model(embeddings, z.flip(0)), images)
