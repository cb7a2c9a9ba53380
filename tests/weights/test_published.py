"""Every published generator at full width: saved, cut on the way, checked, converted, loaded."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch

from amfast.errors import WeightsError
from amfast.generators import sources
from amfast.generators.architectures import ARCHITECTURES, default_eps, random_biggan, random_deep
from amfast.generators.reference import BigGANConfig
from amfast.weights import store
from amfast.weights.catalogue import CATALOGUE
from tests.generators.conftest import CONFIGS
from tests.weights.conftest import HASTY, Server, saved, sha256


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_full_width_round_trip(
    name: str, home: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, entry = ARCHITECTURES[name], CATALOGUE[name]
    model = random_biggan(config) if isinstance(config, BigGANConfig) else random_deep(config)
    state = dict(model.state_dict())
    body = saved(state)
    if entry.member:
        packed = BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(entry.member, body)
        body = packed.getvalue()
    first, *others = entry.files
    url = server.put(first.name, body, cut_at=len(body) // 2)
    files = [dataclasses.replace(first, sources=(url,), size=len(body), sha256=sha256(body))]
    for file in others:
        text = json.dumps({"output_dim": config.resolution, "eps": 1e-4}).encode()
        files.append(dataclasses.replace(file, sources=(server.put(file.name, text),)))
    monkeypatch.setitem(CATALOGUE, name, dataclasses.replace(entry, files=tuple(files)))

    store.fetch(name, patience=HASTY)
    assert [path for path, asked in server.log if asked] == [f"/{first.name}"]  # went on after it
    assert store.verify(name).sha256[first.name] == sha256(body)
    del body, files
    server.answers.clear()
    found = sources.load_plain(name, None, "auto").model
    eps = default_eps(name) if isinstance(config, BigGANConfig) else (1e-4,)
    assert eps == (found.config.norm_eps, *([found.config.spectral_eps] if len(eps) > 1 else []))  # type: ignore[union-attr]
    loaded = found.state_dict()
    assert loaded.keys() == state.keys()
    assert all(
        torch.equal(loaded[key], state[key]) for key in state if not key.endswith(".sv0")
    )  # sv0 is never read


@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        ("biggan-256", lambda state: state, "holds a BigGAN of 8 px .* which is not biggan-256"),
        ("biggan-128", lambda state: {**state, "linear.bias": state["linear.bias"] * torch.nan},
         "not finite: linear.bias"),
        ("biggan-128", lambda state: {k: v for k, v in state.items() if k != "linear.bias"},
         "missing: linear.bias"),
        ("resnet18-places365", lambda state: state, "these weights do not fit the classifier"),
    ],
)  # fmt: skip
def test_another_model_is_not_kept(
    name: str, spoil: Any, said: str, home: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And does not bind what is fetched later to its hash."""
    small = CONFIGS["128-narrow"]
    monkeypatch.setitem(ARCHITECTURES, "biggan-128", small)
    config = CONFIGS["one-block"] if name == "biggan-256" else small
    state = dict(random_biggan(config).state_dict())
    entry = CATALOGUE[name]
    url = server.put("weights", saved(spoil(state)))
    file = dataclasses.replace(entry.files[0], sources=(url,))
    monkeypatch.setitem(CATALOGUE, name, dataclasses.replace(entry, files=(file,), member=None))
    with pytest.raises(WeightsError, match=f"gave is not {name}: .*{said}"):
        store.fetch(name, patience=HASTY)
    assert not [path for path in home.rglob("*") if path.is_file() and path.name != "lock"]
