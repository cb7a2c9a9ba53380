"""Going on with a run of other versions, or with more trials than it had."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.command import SMALL, assert_refused, contents

MORE = ("--trials", "3", "--batch-embeddings", "4")


@pytest.fixture
def older(finished, tmp_path):
    """The finished run, as another version of torch left it."""
    run_dir = tmp_path / "run"
    shutil.copytree(finished.run_dir, run_dir)
    stored = json.loads((run_dir / "run.json").read_text())
    stored["versions"]["torch"] = "2.10.0"
    del stored["drift"]  # from before there was any
    (run_dir / "run.json").write_text(json.dumps(stored))
    return run_dir


def test_finished_trials_stay_and_the_drift_is_kept(older, finished, invoke):
    ages = {path: path.stat().st_mtime_ns for path in (older / "trials").iterdir()}
    here = (*SMALL, *MORE, "--resume", "--outdir", older)
    hint = "versions.torch: 2.10.0 in the run, .*; --allow-drift goes on"
    assert_refused(invoke(*here), 1, "trials: 2 in the run, 3 asked for", hint)
    done = invoke(*here, "--allow-drift", "--report")
    assert done.returncode == 0, done.stderr
    assert "6 of 9 trials are finished already and are kept" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in ages} == ages
    stored = json.loads((older / "run.json").read_text())
    (entry,) = stored["drift"]
    changed = [change["field"] for change in entry["changes"]]
    assert changed == ["trials", "batch_embeddings", "versions.torch"]
    assert stored["versions"]["torch"] != "2.10.0" and stored["config"]["trials"] == 3
    (note,) = stored["notes"]
    assert note.startswith("this run has drifted (--allow-drift): trials: 2 in the run, 3 asked")
    assert note in done.stderr
    assert "this run has drifted" in (older / "report" / "index.html").read_text()
    kept = contents(finished.run_dir)
    assert all(contents(older)[name] == kept[name] for name in kept if name.startswith("trials/"))
    again = invoke(*here, "--json")  # it is that run now
    assert again.returncode == 0 and json.loads(again.stdout)["trials"] == 9


def test_another_run_is_no_drift(older, invoke):
    before = contents(older), (older / "run.json").read_bytes()
    answer = invoke(*SMALL, "--lr", "0.5", "--resume", "--allow-drift", "--outdir", older)
    assert_refused(answer, 1, "--allow-drift cannot help with lr, by which the finished trials")
    assert (contents(older), (older / "run.json").read_bytes()) == before


@pytest.mark.parametrize("options", [["--outdir", "run"], ["--resume"]])
def test_drift_is_of_a_run_that_is_named(older, options, invoke):
    answer = invoke(*SMALL, *options, "--allow-drift")
    assert_refused(answer, 2, "--allow-drift goes on with one run: add --resume, and name its")
