"""Writing a report: where it goes, what is refused, and what a run does without one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import amfast
from amfast.cli import main
from amfast.cli import run as run_command
from amfast.errors import RunError
from amfast.generators import Generator
from amfast.report import write
from amfast.runs.lock import locked
from tests.command import environment, listing
from tests.report.conftest import EditRun, Noise

TINY = ("run", "--classes", "star", "--trials", "1", "--steps", "2", "--latents", "2",
        "--device", "cpu")  # fmt: skip


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """The command within this process."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return (int(ended.value.code or 0), *capsys.readouterr())


def test_the_real_command(run: Path) -> None:
    words = [sys.executable, "-m", "amfast", "report", "run", "--json"]
    done = subprocess.run(
        words, cwd=run.parent, env=environment(), capture_output=True, text=True, check=True
    )
    said = json.loads(done.stdout)
    page = run / "report" / "index.html"
    assert said == {"report": "run/report/index.html", "bytes": page.stat().st_size, "left_out": ""}
    assert listing(run / "report") == ["index.html"]


def test_elsewhere_and_over_an_earlier_one(
    run: Path, tmp_path: Path, generator: Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    before = listing(run)
    out = tmp_path / "a" / "b"
    code, _, said = call(capsys, "report", run, "--out", out, "--device", "cpu")
    assert code == 0 and "MB)" in said and str(out / "index.html") in said.replace("\n", "")
    assert listing(run) == before
    first = (out / "index.html").read_bytes()
    amfast.write_report(run, out=out, generator=generator)
    assert (out / "index.html").read_bytes() == first


def test_refusals_leave_nothing_behind(
    run: Path, tmp_path: Path, generator: Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    before = listing(run)
    with pytest.raises(RunError, match="give the weights that the run was made with"):
        amfast.write_report(run, generator=Noise(64))
    with locked(run / "lock"), pytest.raises(RunError, match="is in use by"):
        amfast.write_report(run, generator=generator)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="it is a file, not a folder"):
        amfast.write_report(run, out=tmp_path / "file", generator=generator)
    code, out, said = call(capsys, "report", tmp_path / "none")
    assert code == 1 and out == "" and said.startswith("amfast: cannot read")
    assert listing(run) == before


def test_imported_embeddings_are_refused(edit: EditRun) -> None:
    def change(about: dict[str, Any]) -> None:
        about["config"] = None
        about["imported"] = {"generator": "embedded", "weights": None, "files": []}

    with pytest.raises(RunError, match="nothing was optimised in it.*amfast evaluate measures"):
        amfast.write_report(edit("run.json", change))


def test_what_fails_midway_leaves_no_folder(
    run: Path, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(write, "render_report", interrupt)
    with pytest.raises(KeyboardInterrupt):
        amfast.write_report(run, generator=generator)
    assert not (run / "report").exists()


def test_a_run_ends_with_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, said = call(capsys, *TINY, "--outdir", tmp_path)
    (run,) = tmp_path.iterdir()
    assert code == 0 and f"open: {run}/report/index.html" in out
    assert (run / "report" / "index.html").stat().st_size > 20_000
    assert "writing the report" in said
    code, out, said = call(capsys, *TINY, "--outdir", tmp_path, "--resume", "--json", "--quiet")
    assert json.loads(out)["report"] == str(run / "report" / "index.html")
    assert code == 0 and said == ""


def test_a_run_without_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, said = call(capsys, *TINY, "--outdir", tmp_path, "--no-report", "--json")
    (run,) = tmp_path.iterdir()
    assert code == 0 and json.loads(out)["report"] is None
    assert not (run / "report").exists() and "writing the report" not in said


def test_a_report_that_fails_does_not_fail_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> str:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(write, "render_report", fail)
    code, out, said = call(capsys, *TINY, "--outdir", tmp_path)
    (run,) = tmp_path.iterdir()
    assert code == 0 and "summary.json" in out and "open:" not in out
    assert "finished and kept, but its report was not written: by nothing" in said
    assert f"amfast report {run} tries again" in said


def test_an_interrupt_while_reporting_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_command, "report_if_possible", interrupt)
    code, _, said = call(capsys, *TINY, "--outdir", tmp_path)
    assert code == 130 and "1 finished trials are kept" in said and "--resume" in said
