"""Loading BigGAN-deep weights: the family and its architecture are read off the tensors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import amfast
from amfast.errors import UsageError, WeightsError
from amfast.generators import BigGANDeepGenerator, BigGANGenerator
from amfast.generators.architectures import random_biggan, random_deep
from amfast.generators.biggan_deep import infer_deep_config, load_deep_reference
from amfast.generators.protocol import Generator
from amfast.generators.reference_deep import BigGANDeep
from tests.generators.conftest import CONFIGS, DEEP_CONFIGS


def test_config_is_read_off_the_state(deep: BigGANDeep) -> None:
    assert infer_deep_config(deep.state_dict()) == deep.config


def test_state_round_trips(deep: BigGANDeep) -> None:
    loaded = load_deep_reference(deep.state_dict(), deep.config)
    z = torch.randn(2, deep.config.latent_dim)
    embedding = deep.class_embeddings[:2]
    assert torch.equal(loaded(embedding, z), deep(embedding, z))


def replace(key: str, *shape: int):  # type: ignore[no-untyped-def]
    return lambda state: state.update({f"generator.{key}": torch.zeros(shape)})


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda s: s.pop("generator.gen_z.bias"), "missing: generator.gen_z.bias"),
        (lambda s: s.pop("generator.layers.0.conv_2.weight_v"), "missing: .*0.conv_2.weight_v"),
        (lambda s: s.update(extra=torch.zeros(1)), "unexpected: extra"),
        (replace("gen_z.bias", 1), r"misshapen: generator.gen_z.bias \[1\] instead of \[256\]"),
        (replace("layers.0.conv_1.weight_orig", 4, 4, 1, 9), "misshapen: .*conv_1.weight_orig"),
        (
            lambda s: s["generator.bn.running_vars"][1].fill_(float("inf")),
            "not finite: generator.bn.running_vars",
        ),
        (lambda s: s.pop("embeddings.weight"), "not a BigGAN-deep generator's: a key such as"),
        (lambda s: s.pop("generator.layers.2.gamma"), "not a BigGAN-deep generator's"),
        (replace("bn.running_means", 8), "not a BigGAN-deep generator's"),
        (replace("layers.1.conv_3.weight_orig", 5, 4, 1, 1), r"stages have \[16, 5\] channels"),
        (replace("gen_z.weight_orig", 256, 7), "must leave some to the latent"),
        (replace("bn.running_means", 1, 8), "1 rows of statistics must be two or more"),
        (lambda s: s.clear(), "not a BigGAN-deep generator's"),
    ],
)
def test_wrong_weights_are_named(damage, sentence: str) -> None:  # type: ignore[no-untyped-def]
    model = random_deep(DEEP_CONFIGS["one-stage"])
    state = {k: v.clone() for k, v in model.state_dict().items()}
    damage(state)
    with pytest.raises(WeightsError, match=sentence):
        load_deep_reference(state, infer_deep_config(state))


def write(path: Path, model: torch.nn.Module, **metadata: str) -> Path:
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path, metadata or None)
    return path


def test_load_generator_knows_the_family_by_its_keys(tmp_path: Path) -> None:
    model = random_deep(DEEP_CONFIGS["one-stage"])
    path = write(tmp_path / "tiny.safetensors", model, labels=json.dumps(["a", "b"]))
    generator = amfast.load_generator("embedded", weights=path, device="cpu")
    assert isinstance(generator, BigGANDeepGenerator)
    assert isinstance(generator, Generator)
    spec = generator.spec
    assert (spec.name, spec.resolution, spec.embedding_dim) == ("tiny", 8, 7)
    assert (spec.latent_dim, spec.labels) == (3, ("a", "b"))
    table = model.embeddings.weight  # [E, classes]
    assert spec.clip_range == (table.min(), table.max())
    assert torch.equal(generator.class_embeddings, table.t())
    z = torch.randn(1, 3, 3)
    torch.testing.assert_close(
        generator(generator.class_embeddings[:1], z),
        model(model.class_embeddings[:1].expand(3, -1), z[0]),
        rtol=0,
        atol=1e-5,
    )
    other = write(tmp_path / "other.safetensors", random_biggan(CONFIGS["one-block"]))
    plain = amfast.load_generator("embedded", weights=other, device="cpu")
    assert isinstance(plain, BigGANGenerator)


def test_fingerprints_differ_and_labels_default_to_numbers(tmp_path: Path) -> None:
    prints = set()
    for seed in (0, 1):
        model = random_deep(DEEP_CONFIGS["one-stage"], seed)
        path = write(tmp_path / f"{seed}.safetensors", model)
        spec = amfast.load_generator("embedded", weights=path, device="cpu").spec
        assert spec.labels == ("0", "1")
        prints.add(spec.fingerprint)
    assert len(prints) == 2


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({"norm_eps": "small"}, "metadata of .* cannot be read"),
        ({"labels": '["a"]'}, "names 1 classes and holds 2"),
        ({"labels": "[1, 2]"}, "should be a JSON list of names"),
    ],
)
def test_bad_metadata(tmp_path: Path, metadata: dict[str, str], sentence: str) -> None:
    path = write(tmp_path / "x.safetensors", random_deep(DEEP_CONFIGS["one-stage"]), **metadata)
    with pytest.raises(WeightsError, match=sentence):
        amfast.load_generator("embedded", weights=path, device="cpu")


def test_the_eps_is_taken_from_the_metadata(tmp_path: Path) -> None:
    model = random_deep(DEEP_CONFIGS["one-stage"])
    images = []
    for eps in ("1e-4", "0.5"):
        path = write(tmp_path / f"{eps}.safetensors", model, norm_eps=eps)
        generator = amfast.load_generator("embedded", weights=path, device="cpu")
        images.append(generator(generator.class_embeddings[:1], torch.ones(1, 1, 3)))
    assert not torch.allclose(*images, atol=1e-3)


@pytest.mark.parametrize("stats", ["upstream", "exact"])
def test_truncation_scales_the_latents_and_selects_the_statistics(
    tmp_path: Path, stats: str
) -> None:
    model = random_deep(DEEP_CONFIGS["one-stage"])
    path = write(tmp_path / "x.safetensors", model)
    generator = amfast.load_generator(
        "embedded",
        weights=path,
        device="cpu",
        truncation=0.4,
        truncation_stats=stats,  # type: ignore[arg-type]
    )
    z = torch.randn(2, 3)
    expected = model(model.class_embeddings, 0.4 * z, 0.4, stats)  # type: ignore[arg-type]
    images = generator(model.class_embeddings, z[:, None])
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)


def test_an_unknown_rule_is_refused_for_either_family() -> None:
    with pytest.raises(UsageError, match="truncation_stats is 'nearest'"):
        amfast.load_generator("embedded", truncation_stats="nearest")  # type: ignore[arg-type]


def test_half_precision_images_are_near(tmp_path: Path) -> None:
    model = random_deep(DEEP_CONFIGS["one-stage"])
    path = write(tmp_path / "x.safetensors", model)
    exact = amfast.load_generator("embedded", weights=path, device="cpu")
    rounded = amfast.load_generator("embedded", weights=path, device="cpu", dtype="bf16")
    z, c = torch.randn(1, 4, 3), exact.class_embeddings[:1]
    images = rounded(c, z)
    assert images.dtype == torch.float32
    assert (images - exact(c, z)).abs().mean() < 0.05
