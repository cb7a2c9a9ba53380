"""``amfast study RUN`` and ``amfast study score FILES...``."""

from __future__ import annotations

import json
import shutil
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from tests.command import amfast, assert_refused, listing

MAKE = ("--classes", "0,1", "--seed", "3", "--device", "cpu")


@pytest.fixture
def run(tmp_path, finished):
    """A copy of a run that the command made, to be written into."""
    shutil.copytree(finished.run_dir, tmp_path / "run")
    return tmp_path / "run"


def write_answers(path: Path, study: Path, value: int, participant: int) -> Path:
    key = json.loads((study / "key.json").read_text())
    now = int(time.time() * 1000) + participant  # nobody clicks in the same milliseconds
    answers = [{"question": q["question"], "value": value, "at": now} for q in key["questions"]]
    lines = [key["study"], f"{participant:032x}", f"{now} {now}"]
    lines += [f"{a['question']} {a['value']} {a['at']}" for a in answers]
    given: dict[str, Any] = {
        "format": "amfast-study-answers",
        "format_version": 1,
        "study": key["study"],
        "participant": lines[1],
        "started": now,
        "finished": now,
        "answers": answers,
        "checksum": f"{zlib.crc32(chr(10).join(lines).encode()):08x}",
    }
    path.write_text(json.dumps(given))
    return path


def test_the_real_command_makes_a_study(tmp_path, run):
    done = amfast("study", "run", *MAKE, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "wrote run/study/index.html: 4 questions, 0." in done.stderr
    assert done.stderr.startswith("disk is done\nsquare is done\n")
    assert "give participants this file alone" in done.stderr
    assert "wrote run/study/key.json: which side is which" in done.stderr
    assert listing(run / "study") == ["index.html", "key.json"]


def test_from_a_run_to_its_score(tmp_path, run, invoke):
    done = invoke("study", *MAKE, "--json", "run", "--out", "asked")  # options may come first
    value = json.loads(done.stdout)
    assert value["page"] == "asked/index.html" and value["key"] == "asked/key.json"
    assert value["classes"] == [0, 1] and value["questions"] == 4 and value["seed"] == 3
    assert value["page_bytes"] == (tmp_path / "asked" / "index.html").stat().st_size
    for i, clicked in enumerate((3, 3, 1)):
        write_answers(tmp_path / f"{i}.json", tmp_path / "asked", clicked, participant=i)
    neutral = invoke("study", "score", "0.json", "--key", "asked/key.json")
    assert neutral.returncode == 0
    assert f"study {value['study']}: 1 participant;" in neutral.stdout
    assert (
        neutral.stderr == "note: one participant: an interval over participants takes two or more\n"
    )
    row = next(line for line in neutral.stdout.splitlines() if "diversity" in line)
    assert "3.00 ± 0.00" in row and "0, 2, 0 of 2 classes" in row and "2.24 ± 0.85" in row
    shutil.copy(tmp_path / "asked" / "key.json", tmp_path)
    scored = json.loads(invoke("study", "score", "0.json", "1.json", "2.json", "--json").stdout)
    assert scored["participants"] == 3 and [k["answers"] for k in scored["kinds"]] == [6, 6]


def test_a_run_that_is_called_as_a_command_has_a_way_in(tmp_path, run, invoke):
    run.rename(tmp_path / "score")
    assert invoke("study", "./score", *MAKE).returncode == 0
    assert listing(tmp_path / "score" / "study") == ["index.html", "key.json"]
    (tmp_path / "score").rename(tmp_path / "make")
    assert invoke("study", "make", "make", *MAKE, "--out", "asked").returncode == 0
    assert listing(tmp_path / "asked") == ["index.html", "key.json"]
    assert invoke("study", "score", "make").returncode == 1  # answers, by that name


def test_help(invoke):
    shown = invoke("study", "--help")
    assert shown.returncode == 0 and "RUN | score FILES..." in shown.stdout
    assert "--classes" in invoke("study", "make", "--help").stdout
    assert "--key" in invoke("study", "score", "--help").stdout


def test_refusals(tmp_path, run, invoke):
    before = listing(tmp_path)
    for arguments, code, said in (
        (("none",), 1, "none is not there: give a run directory"),
        ((".",), 1, "cannot read run.json"),
        (("run/run.json",), 2, "run/run.json is a file: give a run directory"),
        (("run", "--seed", "-1"), 2, "seed is -1"),
        (("run", "--classes", "moon"), 2, "unknown class 'moon'"),
        (("run", "--classes", "7"), 2, "class 7 does not exist"),
        (("run", "--out", "run"), 1, "run exists already"),
        (("run", "--out", "no/where"), 1, "cannot write no/where: no such file"),
        (("score", "none.json"), 1, "there is no key.json in . or here: give --key"),
        (("score", "none.json", "--key", "none"), 1, "cannot read none: no such file"),
        (("score", "none.json", "--key", "run/run.json"), 1, "is not the key of a study"),
    ):
        assert_refused(invoke("study", *arguments), code, said)
    assert listing(tmp_path) == before


def test_hostile_names_of_files_are_shown_and_not_obeyed(tmp_path, run, invoke):
    done = invoke("study", "run", *MAKE, "--out", "a\x1b[2J")
    assert "\x1b" not in done.stderr and "a\\x1b[2J/index.html" in done.stderr
    name = "b\x1b[2J.json"
    (tmp_path / name).write_text("{}")
    done = invoke("study", "score", name, "--key", "a\x1b[2J/key.json")
    assert done.returncode == 1 and "\x1b" not in done.stderr
