"""Statistics are found again by what the images hold, and by nothing else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from amfast.errors import UsageError
from amfast.images import statistics
from amfast.images.folder import ImageFile, ImageFolder
from amfast.images.statistics import Statistics, cached, content_hash
from amfast.images.vetting import Skipped
from amfast.runs.lock import locked
from tests.images.pictures import encoded, picture
from tests.runs.conftest import directory_of_mode

LABELS = ("ring", "star")
KEPT = Statistics(
    {"mean": torch.arange(3.0).double(), "covariance": torch.eye(3).double().T[::2]},
    {"images": "7", "skipped": "[]"},
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "home"
    monkeypatch.setenv("AMFAST_HOME", str(place))
    return place


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = tmp_path / "set"
    for seed, name in enumerate(("ring/a.png", "ring/b.jpg", "star/c.jpg")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(picture(seed=seed), "JPEG"))
    return root


class Counted:
    """Counts how often it computes."""

    def __init__(self) -> None:
        self.calls = 0
        self.notes: list[str] = []

    def __call__(self) -> Statistics:
        self.calls += 1
        return KEPT

    def cached(self, key: str = "abc-1") -> Statistics:
        return cached(key, self, on_note=self.notes.append)


def same(one: Statistics, other: Statistics) -> bool:
    tensors = one.tensors.keys() == other.tensors.keys() and all(
        torch.equal(one.tensors[k], other.tensors[k]) for k in one.tensors
    )
    return tensors and one.metadata == other.metadata


def test_the_hash_is_of_contents_classes_and_size(images, tmp_path):
    whole = ImageFolder.open(images, LABELS)
    found = content_hash(whole, 64)
    assert len(found) == 64 and int(found, 16)
    moved = tmp_path / "elsewhere"
    shutil.copytree(images, moved)
    (moved / "ring/a.png").rename(moved / "ring/a1.png")
    os.utime(moved / "star/c.jpg", (0, 0))
    assert content_hash(ImageFolder.open(moved, LABELS), 64) == found
    others = {
        "size": content_hash(whole, 65),
        "classes": content_hash(ImageFolder.open(images), 64),
        "numbers": content_hash(ImageFolder.open(images, LABELS[::-1]), 64),
        "selection": content_hash(whole.of_classes([0]), 64),
    }
    (images / "star/c.jpg").write_bytes((images / "star/c.jpg").read_bytes()[:-1])
    others["content"] = content_hash(whole, 64)
    (images / "star/c.jpg").unlink()
    others["unreadable"] = content_hash(whole, 64)
    assert len({found, *others.values()}) == 1 + len(others)


def test_computed_once(home):
    work = Counted()
    assert same(work.cached(), KEPT) and same(work.cached(), KEPT)
    assert work.calls == 1 and work.notes == []
    assert same(work.cached("abc-2"), KEPT) and work.calls == 2
    names = sorted(path.name for path in (home / "statistics").iterdir())
    assert names == ["abc-1.safetensors", "abc-2.safetensors", "lock"]


@pytest.mark.parametrize("harm", ["cut", "bit", "empty", "another kind"])
def test_a_damaged_file_is_computed_again_and_said_once(harm):
    work = Counted()
    work.cached()
    place = statistics.path("abc-1")
    data = bytearray(place.read_bytes())
    if harm == "cut":
        data = data[: len(data) // 2]
    elif harm == "bit":
        data[-1] ^= 1
    elif harm == "empty":
        data = bytearray()
    else:
        data = data.replace(b'"amfast-statistics"', b'"amfast-statisticz"')
    place.write_bytes(bytes(data))
    assert same(work.cached(), KEPT) and work.calls == 2
    assert len(work.notes) == 1
    assert work.notes[0].startswith(f"computing the statistics of a real set again: {place}")
    assert same(work.cached(), KEPT) and work.calls == 2 and len(work.notes) == 1


def test_what_cannot_be_kept_is_returned(monkeypatch, home):
    work = Counted()
    with directory_of_mode(0o555) as path:
        monkeypatch.setenv("AMFAST_HOME", str(path / "home"))
        assert same(work.cached(), KEPT)
        kept_in = path / "home" / "statistics"
    assert work.notes == [
        f"the statistics of a real set are not kept in {kept_in}: permission denied"
    ]
    monkeypatch.setenv("AMFAST_HOME", str(home))
    (home / "statistics").mkdir(parents=True)
    with locked(home / "statistics" / "lock"):
        assert same(work.cached(), KEPT)
    assert "is in use by process" in work.notes[1] and len(work.notes) == 2
    assert not statistics.path("abc-1").exists()


def test_an_error_keeps_nothing(home):
    def fail() -> Statistics:
        raise ValueError("no images")

    with pytest.raises(ValueError, match="no images"):
        cached("abc", fail)
    assert not home.exists()


@pytest.mark.parametrize("key", ["", "../up", "A", ".hidden", "a/b", "a" * 201, "é"])
def test_keys(key):
    with pytest.raises(UsageError, match="cannot name statistics"):
        cached(key, Counted())


def test_skipped_files_go_through_metadata():
    """To where the same content lies later."""
    names = ["a.png", "\udcff.png", "ä.jpg"]

    def folder(root):
        return ImageFolder(Path(root), tuple(ImageFile(Path(root) / n, None) for n in names))

    def skipped(root):
        return [Skipped(root / names[2], "CMYK"), Skipped(root / names[1], "truncated")]

    text = statistics.skipped_to_text(skipped(Path("/set")), folder("/set"))
    assert statistics.skipped_from_text(text, folder("/moved")) == skipped(Path("/moved"))
    assert statistics.skipped_from_text("[]", folder("/set")) == []
