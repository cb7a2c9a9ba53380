"""The frozen form is the reference, rewritten: equal in float64, forward and gradient."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from amfast.generators.architectures import ARCHITECTURES, random_biggan, random_deep
from amfast.generators.frozen import FrozenBigGAN, FrozenNetwork
from amfast.generators.frozen_deep import FrozenBigGANDeep
from amfast.generators.frozen_layers import _attend
from amfast.generators.reference import BigGAN, BigGANConfig
from amfast.generators.reference_deep import BigGANDeep, BigGANDeepConfig
from tests.generators.conftest import CONFIGS, DEEP_CONFIGS, DEEP_UNITS, deep_config

CPU = torch.device("cpu")
Plain = BigGAN | BigGANDeep


def freeze(plain: Plain, dtype: torch.dtype, device: torch.device = CPU) -> FrozenNetwork:
    if isinstance(plain, BigGAN):
        return FrozenBigGAN(plain, dtype, device)
    return FrozenBigGANDeep(plain, dtype, device)


def random_plain(config: BigGANConfig | BigGANDeepConfig) -> Plain:
    return random_biggan(config) if isinstance(config, BigGANConfig) else random_deep(config)


NARROW = {**CONFIGS, **{f"deep-{name}": config for name, config in DEEP_CONFIGS.items()}}


@pytest.fixture(params=list(NARROW))
def plain(request: pytest.FixtureRequest) -> Plain:
    return random_plain(NARROW[request.param])


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(((a - b).abs().max() / b.abs().max()).detach())


def images_and_gradient(network, *args: object, weight: torch.Tensor):  # type: ignore[no-untyped-def]
    """Images, and the gradient of their sum weighted by ``weight`` for the first argument."""
    images = network(*args)
    (gradient,) = torch.autograd.grad((images * weight).sum(), args[0])
    return images.detach(), gradient


def check_equal(plain: Plain, trials: int, latents: int, device: torch.device = CPU) -> None:
    """On ``device`` against the plain model there, so that both sum in one library's order."""
    config, double = plain.config, torch.float64
    torch.manual_seed(0)
    embeddings = 0.3 * torch.randn(trials, config.embedding_dim, dtype=double, device=device)
    embeddings.requires_grad_()
    z = torch.randn(trials, latents, config.latent_dim, dtype=double, device=device)
    size = (trials * latents, 3, config.resolution, config.resolution)
    weight = torch.randn(size, dtype=double, device=device)

    # One network at a time: both of a full-width pair take 6 GB.
    frozen = freeze(plain, double, device)
    images, gradient = images_and_gradient(frozen, embeddings, z, weight=weight)
    del frozen
    rows = embeddings.repeat_interleave(latents, dim=0)
    plain = plain.to(device, double)
    expected, of_rows = images_and_gradient(plain, rows, z.flatten(0, 1), weight=weight)
    assert relative(images, expected) < 1e-12
    assert relative(gradient, of_rows.unflatten(0, (trials, latents)).sum(1)) < 1e-10
    assert images.std() > 0.05  # images that show something, neither grey nor saturated
    assert (images.abs() > 0.999).double().mean() < 0.5


def test_forward_and_gradient_equal_the_reference(plain: Plain) -> None:
    check_equal(plain, trials=2, latents=2)


@pytest.mark.gpu
def test_forward_and_gradient_equal_the_reference_on_cuda(plain: Plain) -> None:
    check_equal(plain, trials=2, latents=2, device=torch.device("cuda"))


BIGGAN_128 = ARCHITECTURES["biggan-128"]
BIGGAN_256 = ARCHITECTURES["biggan-256"]
DEEP_128 = deep_config(128, *DEEP_UNITS["128"])
DEEP_256 = deep_config(128, *DEEP_UNITS["256"])


@pytest.mark.parametrize(
    "config", [BIGGAN_128, BIGGAN_256, DEEP_128], ids=["128", "256", "deep-128"]
)
def test_full_width_equals_the_reference(config: BigGANConfig | BigGANDeepConfig) -> None:
    check_equal(random_plain(config), trials=1, latents=1)


@pytest.mark.parametrize("stats", ["upstream", "exact"])
@pytest.mark.parametrize("truncation", [0.58, 0.4, 0.013])
def test_the_truncation_selects_the_statistics(
    truncation: float, stats: Literal["upstream", "exact"]
) -> None:
    plain = random_deep(DEEP_CONFIGS["128-narrow"]).double()
    frozen = FrozenBigGANDeep(
        plain, torch.float64, CPU, truncation=truncation, truncation_stats=stats
    )
    embedding = plain.class_embeddings[:1]
    z = torch.randn(1, plain.config.latent_dim, dtype=torch.float64)
    images = frozen(embedding, z[None])
    assert relative(images, plain(embedding, z, truncation, stats)) < 1e-12
    assert relative(images, plain(embedding, z)) > 0.01


def test_prepared_latents_give_the_same_images(plain: Plain) -> None:
    frozen = freeze(plain, torch.float32)
    embeddings = torch.randn(2, plain.config.embedding_dim)
    latents = torch.randn(2, 3, plain.config.latent_dim)
    prepared = frozen.prepare_latents(latents)
    assert torch.equal(frozen(embeddings, prepared), frozen(embeddings, latents))


def test_an_image_does_not_depend_on_its_batch_mates(plain: Plain) -> None:
    frozen = freeze(plain, torch.float32)
    embeddings = 0.3 * torch.randn(5, plain.config.embedding_dim)
    latents = torch.randn(5, 4, plain.config.latent_dim)
    together = frozen(embeddings, latents).unflatten(0, (5, 4))
    for row in range(5):
        alone = frozen(embeddings[row : row + 1], latents[row : row + 1])
        torch.testing.assert_close(alone, together[row], rtol=0, atol=1e-5)


def test_the_source_is_left_alone(plain: Plain) -> None:
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    freeze(plain, torch.bfloat16)
    for key, value in plain.state_dict().items():
        assert value.dtype == before[key].dtype
        assert torch.equal(value, before[key])


@pytest.mark.parametrize(
    ("config", "most"),
    [
        (BIGGAN_128, 65e6 / 4),
        (BIGGAN_256, 65e6),
        (DEEP_128, 28e6),
        (DEEP_256, 102e6),
    ],
    ids=["128", "256", "deep-128", "deep-256"],
)
@pytest.mark.parametrize("device", ["meta", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_bytes_kept_for_the_backward(
    config: BigGANConfig | BigGANDeepConfig, most: float, device: str
) -> None:
    """Of the full-size model in bf16, per image, weights aside; 379 MB eagerly for 256 pixels.

    The norms of BigGAN-deep are more; their inputs alone are 24.2 and 94.4 MB.
    """
    with torch.device(device):
        model = BigGAN(config) if isinstance(config, BigGANConfig) else BigGANDeep(config)
        embedding = torch.zeros(1, config.embedding_dim).requires_grad_()
        latents = torch.zeros(1, 1, config.latent_dim)
    frozen = freeze(model.eval(), torch.bfloat16, torch.device(device))
    prepared = frozen.prepare_latents(latents)
    weights = {buffer.untyped_storage()._cdata for buffer in frozen.buffers()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        images = frozen(embedding, prepared)
    assert images.shape == (1, 3, config.resolution, config.resolution)
    assert sum(kept.values()) <= most


def test_attention_in_parts_equals_attention_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amfast.generators.frozen_layers._QUERIES", 5)
    shapes = ((2, 12, 3), (2, 7, 3), (2, 7, 4))
    q, k, v = (torch.randn(s, dtype=torch.float64).requires_grad_() for s in shapes)
    plain = (q @ k.transpose(1, 2)).softmax(dim=-1) @ v
    d = torch.randn_like(plain)
    wanted = torch.autograd.grad(plain, (q, k, v), d)
    found = torch.autograd.grad(_attend(q, k, v), (q, k, v), d)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
