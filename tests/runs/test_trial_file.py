from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from amfast.errors import RunError
from amfast.fingerprint import fingerprint
from amfast.optimize.engine import TrialResult
from amfast.optimize.trials import Trial
from amfast.runs.trial_file import read_trial, trial_path, write_trial

STEPS = 3


def rewrite(path: Path, changed: dict[str, torch.Tensor], **metadata: str) -> None:
    """The same file with some tensors and metadata replaced, and a checksum that is right."""
    tensors = load_file(path) | changed
    with safe_open(path, "pt") as file:
        kept = file.metadata() | {"checksum": fingerprint(tensors)} | metadata
    save_file(tensors, path, kept)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trial.safetensors"


@pytest.fixture
def result(path, facts, make_result) -> TrialResult:
    result = make_result()
    write_trial(path, result, facts, "am-l")
    return result


@pytest.mark.parametrize(
    ("failed_at", "stopped_at"), [(None, None), (0, None), (2, None), (None, 2)]
)
def test_round_trip(path, facts, make_result, failed_at, stopped_at):
    written = make_result(failed_at=failed_at, stopped_at=stopped_at)
    write_trial(path, written, facts, "am-l")
    read = read_trial(path, written.trial, facts, "am-l", STEPS)
    assert read.trial == written.trial
    assert (read.failed_at, read.stopped_at) == (failed_at, stopped_at)
    for name in ("embedding", "start", "history"):
        expected = getattr(written, name)
        torch.testing.assert_close(getattr(read, name), expected, rtol=0, atol=0, equal_nan=True)


def test_same_trial_same_bytes(path, facts, make_result, result):
    first = path.read_bytes()
    for _ in range(5):  # safetensors alone writes its metadata in another order almost every time
        write_trial(path, make_result(), facts, "am-l")
        assert path.read_bytes() == first


def test_any_safetensors_reader_can_read_it(path, facts, result):
    with safe_open(path, "pt") as file:
        assert sorted(file.keys()) == ["embedding", "history", "start"]
        assert torch.equal(file.get_tensor("history"), result.history)
        metadata = file.metadata()
    assert len(metadata.pop("checksum")) == 16
    assert metadata == {
        "format": "amfast-trial",
        "format_version": "1",
        "class_id": "2",
        "class_name": "heart",
        "trial": "1",
        "seed": "7",
        "failed_at": "",
        "stopped_at": "",
        "method": "am-l",
        "generator": "embedded",
        "generator_fingerprint": "00aa",
        "classifier": "shapes",
        "classifier_fingerprint": "11bb",
    }


def test_path_holds_numbers_only():
    assert trial_path(Path("run"), 7, 3) == Path("run/trials/0007-03.safetensors")
    assert trial_path(Path("run"), 12345, 100) == Path("run/trials/12345-100.safetensors")


def test_truncated_anywhere(path, facts, result):
    whole = path.read_bytes()
    for size in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(RunError, match="truncated or damaged"):
            read_trial(path, result.trial, facts, "am-l", STEPS)


def test_flipped_bit_in_the_numbers(path, facts, result):
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    with pytest.raises(RunError, match="do not match its checksum"):
        read_trial(path, result.trial, facts, "am-l", STEPS)


def test_not_a_trial_file(path, facts, result):
    save_file({"embedding": torch.zeros(5)}, path)
    with pytest.raises(RunError, match="holds None version None, expected amfast-trial version 1"):
        read_trial(path, result.trial, facts, "am-l", STEPS)


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"embedding": torch.zeros(4)}, r"embedding torch.float32 \[4\]"),
        ({"start": torch.zeros(5, dtype=torch.float64)}, r"start torch.float64 \[5\]"),
        ({"history": torch.zeros(2, 2)}, r"history torch.float32 \[2, 2\]"),
        ({"more": torch.zeros(1)}, r"more torch.float32 \[1\]"),
    ],
)
def test_wrong_tensors(path, facts, result, changed, found):
    rewrite(path, changed)
    with pytest.raises(RunError, match=f"{found}.*, expected embedding"):
        read_trial(path, result.trial, facts, "am-l", STEPS)


@pytest.mark.parametrize("name", ["failed_at", "stopped_at"])
@pytest.mark.parametrize("value", ["-1", "soon"])
def test_wrong_end(path, facts, result, name, value):
    rewrite(path, {}, **{name: value})
    with pytest.raises(RunError, match=f"{name} is {value}"):
        read_trial(path, result.trial, facts, "am-l", STEPS)


def test_another_generator_is_named(path, facts, result):
    other = dataclasses.replace(
        facts, generator={**facts.generator, "name": "biggan-128", "fingerprint": "ffff"}
    )
    with pytest.raises(RunError, match=r"embedded \(fingerprint 00aa\).*biggan-128 \(.* ffff\)"):
        read_trial(path, result.trial, other, "am-l", STEPS)


def test_another_classifier_method_or_trial(path, facts, result):
    other = dataclasses.replace(facts, classifier={"name": "shapes", "fingerprint": "ffff"})
    with pytest.raises(RunError, match="classifier_fingerprint 11bb, expected ffff"):
        read_trial(path, result.trial, other, "am-l", STEPS)
    with pytest.raises(RunError, match="method am-l, expected am-s"):
        read_trial(path, result.trial, facts, "am-s", STEPS)
    with pytest.raises(RunError, match="trial 1, expected 0"):
        read_trial(path, Trial(2, 0, 7), facts, "am-l", STEPS)
