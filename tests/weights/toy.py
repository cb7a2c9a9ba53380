"""The toy model that the store's tests fetch, and what the store then holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from amfast.errors import WeightsError
from amfast.fingerprint import fingerprint
from amfast.weights import store
from amfast.weights.files import read_safetensors
from tests.command import listing
from tests.weights.conftest import HASTY, saved, sha256, small_state

BODY = saved(small_state())
FINAL = ["downloads/toy/toy.pth", "toy.json", "toy.safetensors"]


def files(home: Path) -> list[str]:
    """What the store holds, without folders and locks."""
    found = [name for name in listing(home) if (home / name).is_file()]
    return [name for name in found if not name.endswith("/lock")]


def check_toy(home: Path) -> None:
    """The converted file has the tensors, and says of what it was made."""
    tensors, metadata = read_safetensors(home / "toy.safetensors")
    wanted = small_state()
    assert {k: v.dtype for k, v in tensors.items()} == {k: v.dtype for k, v in wanted.items()}
    assert all(torch.equal(tensors[key], wanted[key]) for key in wanted)
    assert metadata["name"] == "toy" and metadata["licence"] == "CC0"
    assert metadata["source_sha256"] == sha256(BODY)
    assert metadata["fingerprint"] == fingerprint(wanted)
    assert files(home) == FINAL


def refused(home: Path, *said: str) -> None:
    with pytest.raises(WeightsError) as caught:
        store.fetch("toy", patience=HASTY)
    for part in said:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert files(home) == []
