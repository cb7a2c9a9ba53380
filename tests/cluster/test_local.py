"""A process for each device of one machine, by the real command."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from amfast.cluster import LocalExecutor, Spread, local
from amfast.errors import UsageError
from amfast.runs.session import Listener, execute, prepare
from tests.cluster.faulty import serve
from tests.cluster.processes import LONG, below
from tests.command import amfast, assert_refused, contents, listing, start_amfast, told, wait_for

LOCAL = (*LONG, "--executor", "local", "--devices", "cpu,cpu")


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    where = tmp_path_factory.mktemp("usual")
    assert amfast(*LONG, "--quiet", cwd=where).returncode == 0
    return where / "runs" / "0001-embedded-am-l-s0"


def workers(process):
    return below(process.pid, "spawn_main")


def one(folder):
    (run,) = (folder / "runs").iterdir()
    return run


def same(run, usual):
    return contents(run) == contents(usual) and listing(run) == listing(usual)


def test_a_killed_worker_costs_nothing_that_was_finished(tmp_path, usual):
    with start_amfast(*LOCAL, "--trials-per-task", "1", cwd=tmp_path) as process:
        wait_for(lambda: list(tmp_path.glob("runs/*/trials/*.safetensors")))
        wait_for(lambda: len(workers(process)) == 2)
        finished = len(list(one(tmp_path).glob("trials/*.safetensors")))
        for worker in workers(process):
            os.kill(worker, signal.SIGKILL)
        said = told(process)
    assert process.returncode == 0, said
    assert "is tried again: its process was killed by signal 9 (Killed)" in said
    assert 1 <= finished < 6
    assert same(one(tmp_path), usual)


def test_deterministic_trials_are_the_same_wherever_they_run(tmp_path):
    """Six in one batch on all threads, and shards of four and two on a share of them."""
    short = ("--steps", "10", "--deterministic", "--quiet")
    for name, options in {
        "here": (*LONG, "--batch-embeddings", "6"),
        "there": (*LOCAL, "--trials-per-task", "4"),
    }.items():
        done = amfast(*options, *short, "--outdir", name, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    (here,), (there,) = (tmp_path / "here").iterdir(), (tmp_path / "there").iterdir()
    assert contents(here) == contents(there)


@pytest.mark.parametrize("times", [1, 2])
def test_interrupt(tmp_path, usual, times):
    with start_amfast(*LOCAL, cwd=tmp_path, start_new_session=True) as process:
        wait_for(lambda: list(tmp_path.glob("runs/*/under-way*.safetensors")))
        started = workers(process)
        assert all(map(is_deaf_to_interrupts, started))
        for _ in range(times):
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        said = told(process)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert len(started) == 2
    wait_for(lambda: not any(map(is_alive, started)))
    kept = "those under way, as of their last resample, are kept" in said
    assert kept or (times == 2 and "interrupted again and left at once" in said), said
    done = amfast(*LOCAL, "--resume", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "trials go on from step" in done.stderr
    assert same(one(tmp_path), usual)


def is_deaf_to_interrupts(pid):
    (blocked,) = re.findall(r"SigBlk:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(blocked, 16) >> (signal.SIGINT - 1) & 1)


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_no_worker_outlives_its_driver(tmp_path, usual):
    with start_amfast(*LOCAL, cwd=tmp_path) as process:
        wait_for(lambda: list(tmp_path.glob("runs/*/under-way*.safetensors")))
        started = workers(process)
        process.kill()
    wait_for(lambda: not any(map(is_alive, started)))
    done = amfast(*LONG, "--resume", cwd=tmp_path)  # in one process
    assert done.returncode == 0, done.stderr
    assert same(one(tmp_path), usual)


def test_a_device_that_fails_gets_a_fresh_process(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "_serve", serve)
    monkeypatch.chdir(tmp_path)
    heard = []
    job = prepare(classes="0", trials=2, steps=2, latents=2, device="cpu")
    executor = Spread(LocalExecutor(["cpu"]), shard_trials=1)
    outcome = execute(job, tmp_path, executor=executor, listener=Listener(on_note=heard.append))
    assert (tmp_path / "device-failed").exists()
    assert len(outcome.result.trials) == 2
    (said,) = [note for note in heard if "tried again" in note]
    assert "cpu: AcceleratorError: CUDA error: an illegal memory access" in said


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--devices", "cpu"), 2, "--devices is for --executor local, and this is inline"),
        (("--executor", "local", "--address", "auto"), 2, "--address is for --executor ray"),
        (("--executor", "slurm"), 2, "unknown executor 'slurm': use inline, local or ray"),
        (("--executor", "local", "--devices", "cuda:7"), 2, "device 'cuda:7' does not exist"),
        (("--executor", "local", "--devices", ""), 2, "unknown device ''"),
        (("--executor", "local", "--trials-per-task", "0"), 2, "0 trials in a task"),
        (("--trials-per-task", "3"), 2, "--trials-per-task is for --executor local or ray"),
    ],
)
def test_refused(options, code, said, tmp_path, invoke):
    assert_refused(invoke(*LONG, *options), code, said)
    assert listing(tmp_path) == []


def test_devices_of_another_type(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "resolve_device", lambda name: name)
    job = prepare(classes="0", trials=1, steps=1, latents=1, device="cpu")
    with pytest.raises(UsageError, match="device cuda:1 is of another type than the run's, cpu"):
        execute(job, tmp_path, executor=Spread(LocalExecutor(["cpu", "cuda:1"])))
