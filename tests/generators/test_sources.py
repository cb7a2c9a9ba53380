"""Generators by name, from files, directories and chance; small architectures stand in."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import amfast
from amfast.errors import UsageError, WeightsError
from amfast.generators import sources
from amfast.generators.architectures import ARCHITECTURES, random_biggan, random_deep
from amfast.runs.session import prepare
from amfast.weights import store
from tests.generators.conftest import CONFIGS, DEEP_CONFIGS


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two published names with architectures that take no minute to build."""
    monkeypatch.setitem(ARCHITECTURES, "biggan-128", CONFIGS["128-narrow"])
    monkeypatch.setitem(ARCHITECTURES, "biggan-256", CONFIGS["one-block"])
    monkeypatch.setitem(ARCHITECTURES, "biggan-deep-128", DEEP_CONFIGS["128-narrow"])


def state_of(name: str) -> dict[str, Tensor]:
    config = ARCHITECTURES[name]
    make: Callable[..., torch.nn.Module] = random_deep if "deep" in name else random_biggan
    return {k: v.clone() for k, v in make(config).state_dict().items()}


def images(name: str, **options: object) -> Tensor:
    generator = amfast.load_generator(name, device="cpu", dtype="fp32", **options)  # type: ignore[arg-type]
    z = torch.randn(1, 2, generator.spec.latent_dim, generator=torch.Generator().manual_seed(0))
    return generator(generator.class_embeddings[1:2], z)


@pytest.mark.parametrize("name", ["biggan-128", "biggan-deep-128"])
def test_random_weights_are_seeded_and_say_so(name: str) -> None:
    one, other = images(name, weights="random"), images(name, weights=Path("random"))
    assert torch.equal(one, other) and one.std() > 0.05
    generator = amfast.load_generator(name, weights="random", device="cpu")
    assert generator.spec.name == f"{name}-random"


@pytest.mark.parametrize("name", ["biggan-128", "biggan-deep-128"])
@pytest.mark.parametrize("kind", ["safetensors", "pth", "checkpoint"])
def test_every_kind_of_file_gives_the_same_images(name: str, kind: str, tmp_path: Path) -> None:
    state, path = state_of(name), tmp_path / f"weights.{kind}"
    if kind == "safetensors":
        save_file({k: v.contiguous() for k, v in state.items()}, path)
    else:
        whole = state if kind == "pth" else {"state_dict": {f"module.{k}": state[k] for k in state}}
        torch.save(whole, path)
    assert torch.equal(images(name, weights=path), images(name, weights="random"))


def test_a_directory_of_the_package(tmp_path: Path) -> None:
    torch.save(state_of("biggan-deep-128"), tmp_path / "pytorch_model.bin")
    config = {"eps": ARCHITECTURES["biggan-deep-128"].norm_eps}
    (tmp_path / "config.json").write_text(json.dumps(config))
    wanted = images("biggan-deep-128", weights="random")
    assert torch.equal(images("biggan-deep-128", weights=tmp_path), wanted)
    (tmp_path / "config.json").write_text('{"eps": 0.5}')
    assert not torch.allclose(images("biggan-deep-128", weights=tmp_path), wanted)


def test_weights_that_are_never_read_leave_no_trace(tmp_path: Path) -> None:
    state = state_of("biggan-128")
    bare = {k: v for k, v in state.items() if not k.endswith(".sv0")}
    prints = []
    for i, one in enumerate((state, bare)):
        save_file(one, tmp_path / f"{i}.safetensors")
        generator = amfast.load_generator(
            "biggan-128", weights=tmp_path / f"{i}.safetensors", device="cpu"
        )
        prints.append(generator.spec.fingerprint)
    assert len(bare) < len(state) and prints[0] == prints[1]


def test_eps_profiles(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(state_of("biggan-128"), path)
    model = {
        eps: sources.load_plain("biggan-128", path, eps).model.config  # type: ignore[arg-type]
        for eps in ("auto", "biggan-am", "training")
    }
    assert (model["biggan-am"].norm_eps, model["biggan-am"].spectral_eps) == (1e-4, 1e-4)  # type: ignore[union-attr]
    assert model["training"].norm_eps == 1e-5 and model["auto"] == model["training"]
    save_file(state_of("biggan-128"), path, {"norm_eps": "0.25", "spectral_eps": "0.5"})
    assert sources.load_plain("biggan-128", path, "auto").model.config.norm_eps == 0.25
    assert sources.load_plain("biggan-128", path, "biggan-am").model.config.norm_eps == 1e-4
    other = sources.load_plain("biggan-256", "random", "auto").model.config
    assert other.norm_eps == 1e-4


def test_an_export_may_have_more_classes(tmp_path: Path) -> None:
    state = state_of("biggan-128")
    state["shared.weight"] = torch.cat([state["shared.weight"], state["shared.weight"][:1]])
    save_file(state, tmp_path / "more.safetensors")
    generator = amfast.load_generator(
        "biggan-128", weights=tmp_path / "more.safetensors", device="cpu"
    )
    assert len(generator.class_embeddings) == ARCHITECTURES["biggan-128"].num_classes + 1


def test_a_run_remembers_where_its_weights_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_file(state_of("biggan-128"), "w.safetensors")
    job = prepare(classes="0", generator="biggan-128", weights="w.safetensors")
    assert job.config.weights == str(tmp_path / "w.safetensors")
    job = prepare(classes="0", generator="biggan-128", weights="random")
    assert job.config.weights == "random"


class Malicious:
    """Unpickled, it would make a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_bad_files(tmp_path: Path) -> None:
    def refused(match: str, name: str = "biggan-128", error: type = WeightsError) -> None:
        with pytest.raises(error, match=match):
            amfast.load_generator(name, weights=path, device="cpu")

    path = tmp_path / "w.pth"
    refused("cannot read weights from .*No such file")
    torch.save({"a": Malicious(tmp_path / "ran")}, path)
    refused("does not unpickle")
    assert not (tmp_path / "ran").exists()
    state = state_of("biggan-128")
    torch.save(state, path)
    refused("which is not biggan-256: that has widths", "biggan-256")
    refused("which is not biggan-deep-128", "biggan-deep-128")
    path.write_bytes(path.read_bytes()[:-2000])
    refused("truncated or damaged")
    state["linear.bias"][0] = torch.nan
    torch.save(state, path)
    refused(r"w\.pth: these weights do not fit .* not finite: linear.bias")
    del state["linear.bias"]
    torch.save(state, path)
    refused("missing: linear.bias")
    torch.save({"a": torch.zeros(3)}, path)
    refused(r"w\.pth: these weights are not a BigGAN .* \('blocks.0.0.conv1.weight'\)")
    torch.save({"state_dict": {"a": 1}}, path)
    refused("holds no state_dict")
    path = tmp_path
    refused("holds no model.safetensors or pytorch_model.bin")


def test_bad_names() -> None:
    with pytest.raises(UsageError, match="unknown generator 'x'; it may be one of embedded, big"):
        amfast.load_generator("x")
    with pytest.raises(UsageError, match="random weights are for biggan-128"):
        amfast.load_generator("embedded", weights="random")
    with pytest.raises(UsageError, match="eps is 'x'; it may be one of auto, biggan-am, training"):
        amfast.load_generator("embedded", eps="x")  # type: ignore[arg-type]


def test_weights_come_from_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMFAST_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="run 'amfast weights fetch biggan-128'"):
        amfast.load_generator("biggan-128")
    save_file(state_of("biggan-128"), store.path("biggan-128"))
    assert torch.equal(images("biggan-128"), images("biggan-128", weights="random"))


def test_the_example_of_the_docs(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parents[2] / "docs" / "models.md"
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    optimize = amfast.optimize
    monkeypatch.setattr(
        amfast, "optimize", lambda *given, **named: optimize(*given, **named, steps=3, latents=4)
    )
    found: dict[str, Any] = {}
    exec(compile(example, str(page), "exec"), found)
    result = found["result"]
    assert result.embeddings.shape == (2, 16) and not result.failed
    assert not torch.equal(result.trials[0].embedding, result.trials[0].start)
