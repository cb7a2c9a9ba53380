from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from amfast.errors import RunError
from amfast.runs.files import read_bytes, write_bytes, write_directory, write_json


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_replaces_a_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.bin"
    (tmp_path / ".a.bin.tmp").write_bytes(b"left by a killed process")
    for data in (b"one", b""):
        write_bytes(path, data)
        assert read_bytes(path) == data
        assert names(tmp_path) == ["a.bin"]


def test_full_disk_keeps_the_old_file(tmp_path, disk_full):
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    with disk_full(), pytest.raises(RunError, match=r"cannot write .*a\.bin: file too large"):
        write_bytes(path, b"new")
    assert names(tmp_path) == ["a.bin"]
    assert path.read_bytes() == b"old"


def test_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("amfast.runs.files.os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "a.bin", b"new")
    assert names(tmp_path) == []


def test_read_only_directory(read_only):
    with pytest.raises(RunError, match=r"cannot write .*a\.bin: permission denied"):
        write_bytes(read_only / "a.bin", b"new")
    assert names(read_only) == []


def test_parent_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="not a directory"):
        write_bytes(tmp_path / "file" / "a.bin", b"new")


def test_missing_file(tmp_path):
    with pytest.raises(RunError, match=r"cannot read .*a\.bin: no such file"):
        read_bytes(tmp_path / "a.bin")


def test_json_is_strict(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, None, "é"]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": [1, None, "é"]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "b.json", {"b": math.nan})
    assert names(tmp_path) == ["a.json"]


def test_a_directory_is_whole_or_not_there(tmp_path, disk_full):
    path = tmp_path / "out"
    (tmp_path / ".out.tmp").mkdir()
    (tmp_path / ".out.tmp" / "c").write_bytes(b"left by a killed process")
    with disk_full(), pytest.raises(RunError, match=r"cannot write .*a: file too large"):
        write_directory(path, {"a": b"1", "b": b"2"})
    assert names(tmp_path) == []
    write_directory(path, {"a": b"1", "b": b"2"})
    assert names(tmp_path) == ["out"] and names(path) == ["a", "b"]
    with pytest.raises(RunError, match="out exists already: choose another name"):
        write_directory(path, {"a": b"3"})
    assert (path / "a").read_bytes() == b"1"
