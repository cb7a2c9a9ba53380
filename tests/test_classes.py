from __future__ import annotations

from pathlib import Path

import pytest

from amfast.classes import PRESETS, select_classes
from amfast.errors import UsageError

LABELS = ("disk", "square", "star", "7up", "all black", "snow, deep")


@pytest.mark.parametrize(
    ("selection", "ids"),
    [
        ("all", (0, 1, 2, 3, 4, 5)),
        ("star", (2,)),
        ("2,0, 2 ,disk", (2, 0)),
        ("1-3", (1, 2, 3)),
        ("3-3,star,", (3, 2)),
        ([5, "disk", "1-2"], (5, 0, 1, 2)),
        ("7up", (3,)),
        (["snow, deep"], (5,)),
    ],
)
def test_selections(selection: str | list[int | str], ids: tuple[int, ...]) -> None:
    assert select_classes(selection, LABELS) == ids


def test_a_preset() -> None:
    labels = [f"class {i}" for i in range(1000)]
    assert select_classes("imagenet-50,0", labels) == (*PRESETS["imagenet-50"], 0)
    assert len(PRESETS["imagenet-50"]) == len(set(PRESETS["imagenet-50"])) == 50
    assert len(set(PRESETS["places-16"])) == 16
    with pytest.raises(UsageError, match="preset imagenet-50"):
        select_classes("imagenet-50", LABELS)


def test_a_comma_in_the_name_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a,b.txt"
    file.write_text("star\n0-1\n", encoding="utf-8")
    assert select_classes(f"@{file}", LABELS) == (2, 0, 1)
    (tmp_path / "a").write_text("square", encoding="utf-8")
    assert select_classes(f"@{tmp_path}/a,disk", LABELS) == (1, 0)
    with pytest.raises(UsageError, match="cannot read the class file .*/none: No such file"):
        select_classes(f"@{tmp_path}/none,b.txt", LABELS)


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_text("\ufeff# the poor ones\nstar\n0-1, 3  # two more\n\n", encoding="utf-8")
    assert select_classes(f"@{file},disk", LABELS) == (2, 0, 1, 3)


@pytest.mark.parametrize(
    ("selection", "sentence"),
    [
        ("sta", "did you mean star"),
        ("zzz", "lists the names"),
        ("6", "ids run from 0 to 5"),
        ("4-9", "class 9 does not exist"),
        ("3-1", "reversed: write 1-3"),
        ("", "no class was selected"),
        (" , ", "no class was selected"),
        ([], "no class was selected"),
        ("-1", "unknown class '-1'"),
        ("1-", "unknown class '1-'"),
        ("../../x", "unknown class '../../x'"),
        ("9" * 50, "unknown class"),
        ("²", "unknown class"),
        ("@/does/not/exist", "cannot read the class file"),
        ("@.", "cannot read the class file"),
    ],
)
def test_what_is_refused(selection: str | list[int | str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        select_classes(selection, LABELS)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"star\n../../x\n", "'../../x' .*line 2"),
        (b"@other.txt\n", "unknown class '@other.txt'"),
        (b"\xff\xfe\x00", "not text in UTF-8"),
        (b"x" * (1 << 20) + b"x", "larger than 1 MiB"),
        (b"# nothing\n", "no class was selected"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    file = tmp_path / "classes.txt"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=sentence):
        select_classes(f"@{file}", LABELS)
