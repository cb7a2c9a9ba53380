from __future__ import annotations

import json
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from amfast.cli import main
from amfast.embedded import EMBEDDED
from amfast.generators.frozen import FrozenBigGAN
from tests.command import (
    SMALL,
    amfast,
    assert_refused,
    contents,
    environment,
    listing,
    start_amfast,
    told,
    wait_for,
)


def test_json_is_all_that_stdout_holds(finished):
    report, run_dir = finished.report, finished.run_dir
    assert {"run_dir", "trials", "failed", "seconds_per_trial"} <= set(report)
    assert finished.process.stdout == json.dumps(report) + "\n"
    assert (report["trials"], report["failed"]) == (6, 0)
    assert 0 < report["seconds_per_trial"] < 60
    assert run_dir.name == "0001-embedded-am-l-s0"
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary == {key: report[key] for key in summary}
    for key in ("embeddings", "summary", "picture"):
        assert report[key].startswith(str(run_dir))
    for said in (f"run directory: {run_dir}", "step 6/6 of 1 trials (100% of the run)", "scoring"):
        assert said in finished.process.stderr


def test_hostile_names_are_shown_and_not_obeyed(tmp_path, invoke):
    labels = json.dumps(["[red]a[/]\x1b[2J\u202eb", *(f"class {i}" for i in range(1, 12))])
    tensors = load_file(EMBEDDED / "classifier.safetensors")
    save_file(tensors, tmp_path / "hostile.safetensors", {"labels": labels, "accuracy": "1"})
    weights = ("--classifier-weights", "hostile.safetensors")
    done = invoke(*SMALL, *weights, "--classes", "0", "--outdir", "o\x1b[2J")
    shown = "".join(done.stdout.split())
    assert done.returncode == 0 and "0[red]a[/]\\x1b[2J\\x202eb" in shown
    assert "o\\x1b[2J/0001-embedded-am-l-s0/comparison.png" in done.stdout
    assert not {"\x1b", "\u202e"} & set(done.stdout + done.stderr)


def test_what_a_run_leaves(finished):
    names = [f"trials/000{i}-0{j}.safetensors" for i in range(3) for j in range(2)]
    others = ["comparison.png", "embeddings.safetensors", "lock", "run.json", "summary.json"]
    assert listing(finished.run_dir) == sorted([*names, *others, "trials"])
    assert listing(finished.run_dir.parent)[0] == finished.run_dir.name  # nothing hidden beside it


def test_finished_run_is_resumed_in_a_moment(finished, tmp_path, invoke):
    shutil.copytree(finished.run_dir, tmp_path / "runs" / "0004-copy")
    answer = invoke(*SMALL, "--resume", "--json")
    assert answer.returncode == 0
    assert "6 of 6 trials are finished already and are kept" in answer.stderr
    report = json.loads(answer.stdout)
    assert report["run_dir"] == "runs/0004-copy"
    assert contents(tmp_path / "runs" / "0004-copy") == contents(finished.run_dir)
    # What was measured when there was work to do is not forgotten.
    stored = json.loads((finished.run_dir / "summary.json").read_text())
    assert report["seconds_per_trial"] == stored["seconds_per_trial"] > 0


def test_a_deterministic_run_is_the_same_in_any_batch(tmp_path, invoke):
    refused = invoke(*SMALL, "--deterministic", "--compile", "on")
    assert_refused(refused, 2, "compile: on, and compilers .*: deterministic takes off, or auto")
    assert not listing(tmp_path)
    assert invoke(*SMALL, "--deterministic", "--quiet").returncode == 0
    file = tmp_path / "runs" / "0001-embedded-am-l-s0" / "run.json"
    config = json.loads(file.read_text())["config"]
    assert (config["deterministic"], config["compile"]) == (True, "off")
    again = (*SMALL, "--resume", "--batch-embeddings", "2")
    assert "6 of 6 trials are finished" in invoke(*again, "--deterministic").stderr
    different = invoke(*again, "--outdir", file.parent)
    assert_refused(different, 1, "another run: batch_embeddings: 1 in .*; deterministic: True in")


def test_resuming_nothing_starts_a_run_and_says_so(tmp_path, invoke):
    answer = invoke(*SMALL, "--classes", "0", "--trials", "1", "--resume", "--outdir", "none")
    assert answer.returncode == 0
    assert "no run of this configuration in none: starting a new one" in answer.stderr


def test_a_run_is_not_put_into_a_run(finished, tmp_path, invoke):
    shutil.copytree(finished.run_dir, tmp_path / "run")
    before = listing(tmp_path)
    answer = invoke(*SMALL, "--outdir", "run")
    assert_refused(answer, 1, "run is a run directory: add --resume")
    assert listing(tmp_path) == before


def test_weights_may_have_moved(tmp_path, invoke):
    shutil.copy(EMBEDDED / "generator.safetensors", tmp_path / "a.safetensors")
    few = (*SMALL, "--classes", "0", "--trials", "1", "--resume", "--outdir", "runs", "--weights")
    assert invoke(*few, "a.safetensors").returncode == 0
    (tmp_path / "a.safetensors").rename(tmp_path / "folder.safetensors")
    answer = invoke(*few, "folder.safetensors")
    assert "1 of 1 trials are finished already" in answer.stderr


def test_table_at_the_end(finished, tmp_path, invoke):
    shutil.copytree(finished.run_dir, tmp_path / "run")
    answer = invoke(*SMALL, "--resume", "--outdir", "run")
    assert answer.returncode == 0
    for row in finished.report["classes"]:
        scores = row["original"], row["trials"][row["best"]]["score"]
        cells = [
            f"{row['class_id']} {row['name']}",
            *(
                " -> ".join(f"{score[key]:.3f}" for score in scores)
                for key in ("target_prob", "distance", "ms_ssim")
            ),
            str(row["best"]),
            "0",
        ]
        assert re.search(r"\s+".join(map(re.escape, cells)), answer.stdout), answer.stdout
    for name in ("comparison.png", "summary.json", "embeddings.safetensors"):
        assert f": run/{name}\n" in answer.stdout


def test_quiet_says_nothing(finished, tmp_path, invoke):
    answer = invoke(*SMALL, "--classes", "1", "--trials", "1", "--quiet")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    (run_dir,) = (tmp_path / "runs").iterdir()
    # Neither the class's neighbours nor the number of trials changes a trial.
    trial = "trials/0001-00.safetensors"
    assert (run_dir / trial).read_bytes() == (finished.run_dir / trial).read_bytes()


def test_every_run_gets_its_own_directory(tmp_path, invoke):
    tiny = ("--classes", "1", "--trials", "1", "--steps", "1")
    for options in (tiny, tiny, (*tiny, "--seed", "5", "--method", "am-s")):
        assert invoke(*SMALL, *options, "--quiet").returncode == 0
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert names == ["0001-embedded-am-l-s0", "0002-embedded-am-l-s0", "0003-embedded-am-s-s5"]


def test_dry_run_writes_nothing(tmp_path, invoke):
    wide = ("--batch-embeddings", "4")
    plan = invoke(*SMALL, *wide, "--microbatch", "5", "--dry-run", "--outdir", "new")
    assert (plan.returncode, plan.stderr) == (0, "")
    assert "6 trials of 6 steps in 2 batches, on cpu in fp32" in plan.stdout
    assert "images in a pass, 2 passes in a step" in plan.stdout and "minutes" in plan.stdout

    told = invoke(*SMALL, *wide, "--dry-run", "--json")
    report = json.loads(told.stdout)
    assert (report["trials"], report["batches"], report["steps_per_trial"]) == (6, 2, 6)
    assert report["bytes_per_pass"] > 0 and report["seconds"] > 0
    assert (report["device"], report["dtype"]) == ("cpu", "fp32")
    assert listing(tmp_path) == []


def test_stopping_early(tmp_path, invoke):
    options = ("--steps", "30", "--steps-per-latents", "5", "--stop", "prob=0.5", "--json")
    done = invoke(*SMALL, *options)
    assert done.returncode == 0
    summary = json.loads(done.stdout)
    ends = [trial["stopped_at"] for row in summary["classes"] for trial in row["trials"]]
    early = [end for end in ends if end is not None]
    assert early
    assert all(0 < end < 30 and end % 5 == 0 for end in early)
    for path in (tmp_path / "runs").glob("*/trials/*"):
        with safe_open(path, "pt") as file:
            history, stopped_at = file.get_tensor("history"), file.metadata()["stopped_at"]
        length = int(stopped_at or 30)
        assert history[:length].isfinite().all() and history[length:].isnan().all()
        assert not stopped_at or history[length - 5 : length, 1].mean() >= 0.5


def test_what_a_user_should_know_is_said_and_kept(tmp_path, monkeypatch, invoke):
    whole = FrozenBigGAN.pre_tanh

    def small_memory(self, embeddings, latents):
        if embeddings.requires_grad and latents.seed.shape[:2].numel() > 1:
            raise torch.OutOfMemoryError("not enough memory")
        return whole(self, embeddings, latents)

    monkeypatch.setattr(FrozenBigGAN, "pre_tanh", small_memory)
    done = invoke(*SMALL)
    assert done.returncode == 0
    note = "out of memory with 2 images in a pass: going on with 1; --microbatch 1 starts there"
    assert done.stderr.count(note) == 1
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert json.loads((run_dir / "run.json").read_text())["notes"] == [note]
    assert len(list((run_dir / "trials").iterdir())) == 6


def test_interrupt_keeps_what_is_finished(tmp_path):
    slow = (*SMALL, "--steps", "60")  # seconds are left after the first trial, on any machine
    assert amfast(*slow, "--quiet", "--outdir", "undisturbed", cwd=tmp_path).returncode == 0
    (undisturbed,) = (tmp_path / "undisturbed").iterdir()
    with start_amfast(*slow, "--outdir", "my runs", cwd=tmp_path) as process:
        wait_for(lambda: list(tmp_path.glob("my runs/*/trials/*.safetensors")))
        process.send_signal(signal.SIGINT)
        said = told(process)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    (run_dir,) = (tmp_path / "my runs").iterdir()
    kept = sorted((run_dir / "trials").iterdir())
    assert 1 <= len(kept) < 6
    assert not [name for name in listing(tmp_path) if name.endswith((".tmp", ".new"))]
    for path in kept:
        assert path.read_bytes() == (undisturbed / "trials" / path.name).read_bytes()

    last = said.splitlines()[-1]
    pattern = (
        rf"amfast: interrupted; {len(kept)} finished trials(?: and those under way, as of their"
        r" last resample,)? are kept in (.+); go on with: (.+)"
    )
    where, command = re.fullmatch(pattern, last).groups()
    assert where == str(run_dir.relative_to(tmp_path))
    ages = {path: path.stat().st_mtime_ns for path in kept}
    again = subprocess.run(
        command, shell=True, cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    assert f"{len(kept)} of 6 trials are finished already" in again.stderr
    assert contents(run_dir) == contents(undisturbed)
    assert listing(run_dir) == listing(undisturbed)
    assert {path: path.stat().st_mtime_ns for path in kept} == ages


@pytest.mark.parametrize(
    ("called", "on_path", "shown"),
    [
        ("/opt/bin/amfast", "/opt/bin/amfast", "amfast"),
        (".venv/bin/amfast", "/opt/bin/amfast", ".venv/bin/amfast"),
        ("/my venv/bin/amfast", None, "'/my venv/bin/amfast'"),
        ("/lib/amfast/__main__.py", "/opt/bin/amfast", f"{sys.executable} -m amfast"),
    ],
)
def test_command_to_resume_works_where_it_was_typed(
    called, on_path, shown, monkeypatch, tmp_path, invoke
):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    words = [*SMALL, "--resume", "--outdir", "a b"]
    monkeypatch.setattr("amfast.runs.session.run_trials", interrupted)
    monkeypatch.setattr("amfast.cli.run.shutil.which", lambda name: on_path)
    monkeypatch.setattr(sys, "argv", [called, *words])
    answer = invoke(*words)
    assert answer.returncode == 130
    assert f"0 finished trials are kept in a b/0001-embedded-am-l-s0; go on with: {shown} run" in (
        answer.stderr
    )
    *_, command = answer.stderr.rstrip().split("go on with: ")
    assert shlex.split(command)[-3:] == ["--outdir", "a b", "--resume"]


def test_interrupt_before_the_run_begins(tmp_path, monkeypatch, invoke):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("amfast.runs.session.RunDirectory.create", interrupted)
    answer = invoke(*SMALL)
    said = "interrupted before the run began; nothing was written"
    assert_refused(answer, 130, said)
    assert listing(tmp_path) == []


def test_memory_that_is_not_there(tmp_path):
    most = 4 << 30  # the first map of a million images takes 8 GB
    answer = amfast(
        *(*SMALL, "--latents", 1_000_000, "--quiet"),
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (most, most)),
    )
    assert_refused(answer, 1, "out of memory: .*--microbatch", "can't allocate memory")


def test_other_errors_are_not_hidden(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("a bug")

    monkeypatch.setattr("amfast.cli.run.prepare", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        main(list(SMALL))
