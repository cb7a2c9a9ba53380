"""Loading BigGAN weights: the architecture is read off the tensors, and nothing wrong gets in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import amfast
from amfast.errors import UsageError, WeightsError
from amfast.generators.architectures import random_biggan
from amfast.generators.biggan import infer_config, load_reference
from amfast.generators.protocol import Generator
from amfast.generators.reference import BigGAN
from tests.generators.conftest import CONFIGS


def test_config_is_read_off_the_state(biggan: BigGAN) -> None:
    assert infer_config(biggan.state_dict()) == biggan.config


def test_state_round_trips_without_sv0(biggan: BigGAN) -> None:
    state = {k: v for k, v in biggan.state_dict().items() if not k.endswith(".sv0")}
    loaded = load_reference(state, biggan.config)
    z = torch.randn(2, biggan.config.latent_dim)
    embedding = biggan.shared.weight[:2]
    assert torch.equal(loaded(embedding, z), biggan(embedding, z))


def test_gamma_may_have_one_dimension(biggan: BigGAN) -> None:
    state = biggan.state_dict()
    gamma = f"blocks.{biggan.config.attention_block}.1.gamma"
    loaded = load_reference({**state, gamma: state[gamma].view(1)}, biggan.config)
    assert torch.equal(loaded.state_dict()[gamma], state[gamma])


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda s: s.pop("blocks.0.0.conv2.weight"), "missing: blocks.0.0.conv2.weight"),
        (lambda s: s.update(extra=torch.zeros(1)), "unexpected: extra"),
        (
            lambda s: s.update({"blocks.0.0.conv2.bias": torch.zeros(1)}),
            r"misshapen: blocks.0.0.conv2.bias \[1\] instead of \[80\]",
        ),
        (
            lambda s: s.update({"linear.bias": torch.zeros(1, 2048)}),
            r"misshapen: linear.bias \[1, 2048\] instead of \[2048\]",
        ),
        (lambda s: s["linear.weight"].fill_(float("nan")), "not finite: linear.weight"),
        (lambda s: s.pop("shared.weight"), "not a BigGAN generator's"),
        (lambda s: s.clear(), "not a BigGAN generator's"),
    ],
)
def test_wrong_weights_are_named(damage, sentence: str) -> None:  # type: ignore[no-untyped-def]
    state = {k: v.clone() for k, v in random_biggan(CONFIGS["embedded"]).state_dict().items()}
    damage(state)
    with pytest.raises(WeightsError, match=sentence):
        load_reference(state, infer_config(state))


def write(path: Path, model: BigGAN, **metadata: str) -> Path:
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path, metadata or None)
    return path


def test_load_generator_from_a_file(tmp_path: Path) -> None:
    model = random_biggan(CONFIGS["one-block"])
    path = write(tmp_path / "tiny.safetensors", model, labels=json.dumps(["a", "b"]))
    generator = amfast.load_generator("embedded", weights=path, device="cpu")
    assert isinstance(generator, Generator)
    spec = generator.spec
    assert (spec.name, spec.resolution, spec.embedding_dim) == ("tiny", 8, 7)
    assert (spec.latent_dim, spec.labels) == (6, ("a", "b"))
    assert spec.clip_range == (model.shared.weight.min(), model.shared.weight.max())
    assert len(spec.fingerprint) == 16
    z = torch.randn(1, 3, 6)
    torch.testing.assert_close(
        generator(generator.class_embeddings[:1], z),
        model(model.shared.weight[:1].expand(3, -1), z[0]),
        rtol=0,
        atol=1e-5,
    )


def test_labels_default_to_numbers_and_fingerprints_differ(tmp_path: Path) -> None:
    prints = set()
    for seed in (0, 1):
        model = random_biggan(CONFIGS["one-block"], seed)
        generator = amfast.load_generator(
            "embedded", weights=write(tmp_path / f"{seed}.safetensors", model), device="cpu"
        )
        assert generator.spec.labels == ("0", "1")
        prints.add(generator.spec.fingerprint)
    assert len(prints) == 2


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({"labels": "not json"}, "labels cannot be read"),
        ({"norm_eps": "small"}, "metadata of .* cannot be read"),
        ({"norm_eps": "nan"}, "its norm_eps is nan, expected a small number"),
        ({"spectral_eps": "-5"}, "its spectral_eps is -5.0, expected a small number"),
        ({"labels": '["a"]'}, "names 1 classes and holds 2"),
        ({"labels": "[1, 2]"}, "should be a JSON list of names"),
        ({"labels": "7"}, "should be a JSON list of names"),
    ],
)
def test_bad_metadata(tmp_path: Path, metadata: dict[str, str], sentence: str) -> None:
    path = write(tmp_path / "x.safetensors", random_biggan(CONFIGS["one-block"]), **metadata)
    with pytest.raises(WeightsError, match=sentence):
        amfast.load_generator("embedded", weights=path, device="cpu")


def test_truncation_scales_the_latents() -> None:
    full = amfast.load_generator("embedded", device="cpu")
    half = amfast.load_generator("embedded", device="cpu", truncation=0.5)
    z, c = torch.randn(1, 2, full.spec.latent_dim), full.class_embeddings[:1]
    assert torch.equal(half(c, z), full(c, 0.5 * z))


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_images_are_near(dtype: str) -> None:
    exact = amfast.load_generator("embedded", device="cpu")
    rounded = amfast.load_generator("embedded", device="cpu", dtype=dtype)  # type: ignore[arg-type]
    z, c = torch.randn(1, 4, exact.spec.latent_dim), exact.class_embeddings[:1]
    images = rounded(c, z)
    assert images.dtype == torch.float32
    assert (images - exact(c, z)).abs().mean() < 0.05


def test_bad_names_and_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown generator 'biggan-9'"):
        amfast.load_generator("biggan-9")
    with pytest.raises(UsageError, match="truncation must lie in"):
        amfast.load_generator("embedded", truncation=1.5)
    with pytest.raises(WeightsError, match="cannot read weights"):
        amfast.load_generator("embedded", weights=tmp_path / "none.safetensors")
    junk = tmp_path / "junk.safetensors"
    junk.write_bytes(b"not safetensors")
    with pytest.raises(WeightsError, match="cannot read weights"):
        amfast.load_generator("embedded", weights=junk)
