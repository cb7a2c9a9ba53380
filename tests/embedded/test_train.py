"""The training script runs end to end at a tiny size and writes what the loaders read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import amfast
from amfast.classifiers import EMBEDDED_CLASSIFIERS
from amfast.discriminator import load_discriminator
from amfast.embedded import train
from amfast.embedded.render import LATENT_DIM


def test_the_whole_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("classifier", "generator", "refit", "discriminator")
    sizes = [word for name in names for word in (f"--{name}-steps", "2")]
    monkeypatch.setattr(train.train_generator, "__defaults__", (64, 1))  # a snapshot every step
    train.main(["--out", str(tmp_path), *sizes])
    generator = amfast.load_generator(
        "embedded", weights=tmp_path / "generator.safetensors", device="cpu"
    )
    for name, file in EMBEDDED_CLASSIFIERS.items():
        amfast.load_classifier(name, weights=tmp_path / file, device="cpu")
    load_discriminator("embedded", weights=tmp_path / "discriminator.safetensors", device="cpu")
    amfast.load_generator("embedded", weights=tmp_path / "snapshots/generator-1.safetensors")
    assert generator.spec.labels == train.NAMES
    shipped = amfast.load_generator("embedded", device="cpu").spec
    assert (generator.spec.latent_dim, generator.spec.resolution) == (
        shipped.latent_dim,
        shipped.resolution,
    )
    diverse = amfast.load_generator(
        "embedded", weights=tmp_path / "diverse/generator-2.safetensors", device="cpu"
    )
    moved = (diverse.class_embeddings != generator.class_embeddings).any(dim=1)
    poor = {*train.ONE_COLOUR, train.COLLAPSED}
    assert {train.NAMES[i] for i in moved.nonzero().flatten().tolist()} == poor


def test_settle_replaces_statistics_by_plain_averages() -> None:
    torch.manual_seed(0)
    model = train.BigGAN(train.CONFIG)
    norm = model.blocks[0][0].bn1  # type: ignore[index,union-attr]
    train.settle(model, batches=3, batch=64)
    assert not model.training
    with torch.no_grad():
        seed = model.linear(torch.randn(4000, LATENT_DIM)[:, :4]).view(4000, -1, 16)
    torch.testing.assert_close(norm.stored_mean, seed.mean(dim=(0, 2)), rtol=0, atol=0.1)
    torch.testing.assert_close(norm.stored_var, seed.var(dim=(0, 2)), rtol=0.2, atol=0.02)


def test_refit_moves_one_row_towards_its_target() -> None:
    torch.manual_seed(0)
    model = train.BigGAN(train.CONFIG).eval().requires_grad_(False)
    nn.init.normal_(model.shared.weight, std=0.3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    z = torch.randn(8, LATENT_DIM)
    target = torch.full((8, 3, 64, 64), 0.3)

    def loss() -> float:
        row = model.shared.weight[2].expand(8, -1)
        return float(train.picture_loss(model(row, z), target))

    first = loss()
    train.refit_row(model, train.NAMES[2], lambda z: torch.full((len(z), 3, 64, 64), 0.3), 10)
    assert loss() < first
    for key, value in model.state_dict().items():
        if key == "shared.weight":
            changed = (value != before[key]).any(dim=1).nonzero().flatten().tolist()
            assert changed == [2]
        else:
            assert torch.equal(value, before[key])


def test_disturbances_stay_in_range_and_differ_per_picture() -> None:
    torch.manual_seed(0)
    x = train.disturb(torch.zeros(4, 3, 64, 64))
    assert x.abs().max() <= 1
    assert x.mean(dim=(1, 2, 3)).std() > 0.01
