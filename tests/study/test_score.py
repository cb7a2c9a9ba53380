"""What answers come to, and which files are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from amfast.errors import RunError, UsageError
from amfast.study import Study, score_study
from amfast.study.key import Kind
from tests.study.conftest import WriteAnswers, seal


def clicks(study: Study, scores: dict[tuple[int, Kind], int]) -> list[int]:
    """What to click for these scores, 1 for clearly AM, by class and kind."""
    wanted = [scores[q.class_id, q.kind] for q in study.key.questions]
    return [
        score if q.left.set == "am" else 6 - score
        for score, q in zip(wanted, study.key.questions, strict=True)
    ]


@pytest.fixture
def two(study: Study, write_answers: WriteAnswers) -> list[Path]:
    first: dict[tuple[int, Kind], int] = {
        (3, "diversity"): 1, (11, "diversity"): 2, (3, "realism"): 3, (11, "realism"): 5,
    }  # fmt: skip
    second: dict[tuple[int, Kind], int] = {
        (3, "diversity"): 2, (11, "diversity"): 4, (3, "realism"): 3, (11, "realism"): 2,
    }  # fmt: skip
    return [
        write_answers("one.json", clicks(study, first), participant=1),
        write_answers("two.json", clicks(study, second), participant=2),
    ]


def test_values_worked_out_by_hand(study: Study, two: list[Path]) -> None:
    found = score_study(two, key=study.key_path)
    diversity, realism = found.kinds
    assert (diversity.kind, realism.kind) == ("diversity", "realism")
    assert found.participants == 2 and found.study == study.key.study
    assert diversity.mean == 2.25 and realism.mean == 3.25
    assert diversity.std == pytest.approx(torch.tensor([1.0, 2, 2, 4]).std().item())
    assert [(c.class_id, c.name, c.mean) for c in diversity.classes] == [
        (3, "star", 1.5),
        (11, "hourglass", 3.0),
    ]
    assert (diversity.won, diversity.tied, diversity.lost) == (1, 1, 0)
    assert (realism.won, realism.tied, realism.lost) == (0, 1, 1)
    assert (diversity.paper_mean, diversity.paper_std) == (2.24, 0.85)
    assert (realism.paper_mean, realism.paper_std) == (2.94, 1.15)
    # Two participants with means 1.5 and 3: drawn anew they give no other means than these.
    assert (diversity.low, diversity.high) == (1.5, 3.0)
    assert found.notes == [] and found == score_study(two[::-1], key=study.key_path)
    json.dumps(found.to_json(), allow_nan=False)


def test_the_interval_is_seeded(study: Study, write_answers: WriteAnswers) -> None:
    stream = torch.Generator().manual_seed(0)
    files = [
        write_answers(
            f"{i}.json", torch.randint(1, 6, (4,), generator=stream).tolist(), participant=i
        )
        for i in range(1, 9)
    ]
    intervals = [
        [(kind.low, kind.high) for kind in score_study(files, key=study.key_path, seed=seed).kinds]
        for seed in (0, 0, 1)
    ]
    assert intervals[0] == intervals[1] != intervals[2]
    for kind in score_study(files, key=study.key_path).kinds:
        assert kind.low is not None and kind.high is not None
        assert kind.low < kind.mean < kind.high


def test_one_participant_has_no_interval(study: Study, two: list[Path]) -> None:
    found = score_study(two[:1], key=study.key_path)
    assert [(kind.low, kind.high) for kind in found.kinds] == [(None, None)] * 2
    assert "an interval over participants takes two or more" in found.notes[0]


def test_the_key_is_found_beside_the_answers_or_here(
    study: Study, two: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RunError, match="there is no key.json in .* give --key"):
        score_study(two)
    shutil.copy(study.key_path, two[0].parent / "key.json")
    assert score_study(two).participants == 2
    (two[0].parent / "key.json").rename(tmp_path / "k")
    (tmp_path / "here").mkdir()
    (tmp_path / "k").rename(tmp_path / "here" / "key.json")
    monkeypatch.chdir(tmp_path / "here")
    assert score_study(two).participants == 2


def edited(path: Path, change: Callable[[dict[str, Any]], object], *, sealed: bool) -> Path:
    """The file as somebody changed it, who knew how to make the checksum fit or did not."""
    given = json.loads(path.read_text())
    change(given)
    if sealed:
        given.pop("checksum")
        return seal(path, given)
    path.write_text(json.dumps(given))
    return path


def another_value(given: dict[str, Any]) -> None:
    given["answers"][0]["value"] = given["answers"][0]["value"] % 5 + 1


@pytest.mark.parametrize(
    "change",
    [
        another_value,
        lambda g: g["answers"][1].update(at=g["answers"][1]["at"] + 1),
        lambda g: g["answers"].reverse(),
        lambda g: g["answers"].pop(),
        lambda g: g.update(participant="f" * 32),
        lambda g: g.update(finished=g["finished"] + 1),
        lambda g: g.update(started=g["started"] - 1),
        lambda g: g.update(checksum="00000000"),
        lambda g: g.update(checksum=""),
    ],
)
def test_a_changed_file_is_refused(study: Study, two: list[Path], change: Any) -> None:
    edited(two[0], change, sealed=False)
    with pytest.raises(RunError, match="one.json was changed after the page wrote it"):
        score_study(two, key=study.key_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda g: g["answers"].pop(), "answers 3 of the study's 4 questions"),
        (lambda g: g["answers"].clear(), "answers 0 of the study's 4 questions"),
        (lambda g: g["answers"].append(dict(g["answers"][0])), "not each once in order"),
        (lambda g: g["answers"][0].update(question=2), "not each once in order"),
        (lambda g: g["answers"][0].update(question=99), "answers 3 of the study's 4"),
        (lambda g: g["answers"][0].update(value=0), "answers.0.value"),
        (lambda g: g["answers"][0].update(value=6), "answers.0.value"),
        (lambda g: g["answers"][0].update(value=2.5), "answers.0.value"),
        (lambda g: g["answers"][0].update(value="3"), "answers.0.value"),
        (lambda g: g["answers"][0].update(value=True), "answers.0.value"),
        (lambda g: g["answers"][0].update(value=None), "answers.0.value"),
        (lambda g: g["answers"][0].update(at=-1), "answers.0.at"),
        (lambda g: g["answers"][0].update(at=2**60), "answers.0.at"),
        (lambda g: g["answers"][0].update(side="left"), "answers.0.side"),
        (lambda g: g.update(note="x"), "note"),
        (lambda g: g.update(study="0" * 16), "is of another study"),
        (lambda g: g.update(participant="me"), "participant"),
        (lambda g: g.update(format="amfast-run"), "format"),
        (lambda g: g.update(format_version=2), "format_version"),
        (lambda g: g.update(started=0), "times that cannot be"),
        (lambda g: g.update(started=g["finished"]), "times that cannot be"),
        (lambda g: g.update(finished=g["started"]), "times that cannot be"),
        (lambda g: g.update(finished=g["finished"] + 10**9), "times that cannot be"),
    ],
)
def test_what_no_page_writes_is_refused_though_its_checksum_fits(
    study: Study, two: list[Path], change: Any, said: str
) -> None:
    edited(two[1], change, sealed=True)
    with pytest.raises(RunError, match=said) as refused:
        score_study(two, key=study.key_path)
    assert str(refused.value).startswith(str(two[1]))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff\xfe",
        b"null",
        b"[]",
        b"3",
        b"NaN",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"format": "amfast-study-answers", "started": NaN}',
        b'{"format": "amfast-study-answers", "started": 1e999}',
        b'{"format": "amfast-study-answers", "started": ' + b"9" * 5000 + b"}",
        b'{"format": "\xff"}',
    ],
)
def test_anything_else_is_refused(study: Study, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(RunError, match="x.json is not a file of answers"):
        score_study([path], key=study.key_path)
    with pytest.raises(RunError, match="x.json is not the key of a study"):
        score_study([path], key=path)


def test_files_that_cannot_be_read(study: Study, tmp_path: Path) -> None:
    huge = tmp_path / "huge.json"
    with huge.open("wb") as file:
        file.truncate(1 << 31)  # holds no block
    for path, said in (
        (huge, "is larger than 1024 KiB"),
        (tmp_path, "it is not a file"),
        (tmp_path / "none.json", "no such file"),
        (Path("/dev/zero"), "it is not a file"),
        (Path("a\0b"), "cannot read"),
        (Path("x" * 5000), "cannot read"),
    ):
        with pytest.raises(RunError, match=said):
            score_study([path], key=study.key_path)
        with pytest.raises(RunError, match=said):
            score_study([huge], key=path)


def test_the_same_participant_counts_once(study: Study, two: list[Path]) -> None:
    copied = two[0].with_name("copy.json")
    shutil.copy(two[0], copied)
    with pytest.raises(RunError, match=r"copy.json and .*one.json are of the same participant"):
        score_study([*two, copied], key=study.key_path)
    with pytest.raises(RunError, match="same participant"):
        score_study([two[0], two[0]], key=study.key_path)
    # Later answers of one participant, and the very clicks of one under another id.
    later = two[0].with_name("later.json")
    given = json.loads(two[0].read_text())
    for change in (
        {"finished": given["finished"] + 5},
        {"participant": "e" * 32},
    ):
        value = {k: v for k, v in given.items() if k != "checksum"} | change
        seal(later, value)
        with pytest.raises(RunError, match=r"later.json and .*one.json are of the same"):
            score_study([*two, later], key=study.key_path)


def test_all_that_is_wrong_is_said_at_once(study: Study, two: list[Path], tmp_path: Path) -> None:
    edited(two[0], another_value, sealed=False)
    with pytest.raises(RunError, match=r"^2 of 3 files are refused: .*none.json.*one.json was"):
        score_study([tmp_path / "none.json", *two], key=study.key_path)


def test_refused_arguments(study: Study, two: list[Path]) -> None:
    with pytest.raises(UsageError, match="0 files of answers were given"):
        score_study([], key=study.key_path)
    with pytest.raises(UsageError, match="seed is -1"):
        score_study(two, key=study.key_path, seed=-1)
