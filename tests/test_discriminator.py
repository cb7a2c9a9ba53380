"""The discriminator: its published shape, its parts by hand, and its files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import amfast
from amfast.discriminator import (
    ARCHITECTURES,
    Block,
    Discriminator,
    DiscriminatorConfig,
    discriminator_loss,
    infer_config,
    load_discriminator,
)
from amfast.embedded.render import LATENT_DIM, render
from amfast.embedded.shapes import GENERATOR_SHAPES
from amfast.errors import UsageError, WeightsError

SMALL = DiscriminatorConfig((8, 16, 16, 16), 1, num_classes=3)


def test_the_published_128_model_in_shape() -> None:
    with torch.device("meta"):
        model = Discriminator(ARCHITECTURES["biggan-128"])
    assert sum(p.numel() for p in model.parameters()) == 87_982_370
    assert model.config.resolution == 128
    assert "blocks.0.1.gamma" in model.state_dict()
    assert "blocks.5.0.conv_sc.weight" not in model.state_dict()  # as wide, and as high, as before


def test_a_block_by_hand() -> None:
    block = Block(3, 5, first=False, halves=True, eps=1e-6).double().eval()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)

    def conv(layer: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        weight = layer.normalized_weight()  # type: ignore[operator]
        return F.conv2d(x, weight, layer.bias, padding=weight.shape[-1] // 2)  # type: ignore[arg-type]

    h = F.avg_pool2d(conv(block.conv2, conv(block.conv1, x.relu()).relu()), 2)
    skip = F.avg_pool2d(conv(block.conv_sc, x), 2)  # the published order
    torch.testing.assert_close(block(x), h + skip, rtol=0, atol=1e-12)


def test_the_score_is_a_projection_on_the_class() -> None:
    model = Discriminator(SMALL).double().eval()
    images = torch.randn(1, 3, 32, 32, dtype=torch.float64).expand(3, -1, -1, -1)
    with torch.no_grad():
        scores = model(images, torch.arange(3))
        model.embed.weight.copy_(model.embed.weight[:1].clone().expand(3, -1))
        alike = model(images, torch.arange(3))
    assert scores.unique().numel() == 3
    torch.testing.assert_close(alike, alike[:1].expand(3))


def test_hinge_loss() -> None:
    real, fake = torch.tensor([0.5, 2.0]), torch.tensor([-2.0, 0.5])
    assert discriminator_loss(real, fake).item() == pytest.approx(0.25 + 0.75)


def test_the_embedded_one_tells_real_from_generated() -> None:
    model, generator = load_discriminator("embedded"), amfast.load_generator("embedded")
    ids = torch.arange(96) % 12
    with torch.no_grad():
        real = model(render(list(GENERATOR_SHAPES.values()), ids, torch.randn(96, LATENT_DIM)), ids)
        latents = torch.randn(96, 1, generator.spec.latent_dim)
        fake = model(generator(generator.class_embeddings[ids], latents), ids)
    assert real.mean() > fake.mean() + 0.5


def test_files(tmp_path: Path) -> None:
    model = Discriminator(SMALL)
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("sv0")}
    save_file(state, tmp_path / "d.safetensors")
    loaded = load_discriminator("embedded", weights=tmp_path / "d.safetensors", device="cpu")
    assert loaded.config == SMALL == infer_config(state)
    images, ids = torch.randn(2, 3, 32, 32), torch.tensor([0, 2])
    torch.testing.assert_close(loaded(images, ids), model.eval()(images, ids))
    with pytest.raises(WeightsError, match="not that of biggan-128"):
        load_discriminator("biggan-128", weights=tmp_path / "d.safetensors", device="cpu")
    del state["linear.bias"]
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(WeightsError, match=r"missing: linear\.bias"):
        load_discriminator("embedded", weights=tmp_path / "less.safetensors", device="cpu")
    save_file({"x": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="not a BigGAN discriminator's"):
        load_discriminator("embedded", weights=tmp_path / "other.safetensors", device="cpu")


@pytest.mark.parametrize(
    ("name", "said"), [("biggan-256", "no published discriminator"), ("biggan-128", "138k/D.pth")]
)
def test_what_there_is_none_of(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_discriminator(name)
