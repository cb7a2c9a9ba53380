"""Shards on Ray, by the real command: on one of this machine alone, and on two nodes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.cluster.processes import LONG, below
from tests.command import (
    amfast,
    assert_refused,
    contents,
    environment,
    listing,
    start_amfast,
    told,
    wait_for,
)

RAY = (*LONG, "--executor", "ray")


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    where = tmp_path_factory.mktemp("usual")
    assert amfast(*LONG, "--quiet", cwd=where).returncode == 0
    return where / "runs" / "0001-embedded-am-l-s0"


def one(folder):
    (run,) = (folder / "runs").iterdir()
    return run


def test_a_killed_worker_costs_nothing_that_was_finished(tmp_path, usual):
    with start_amfast(*RAY, "--trials-per-task", "1", cwd=tmp_path) as process:
        wait_for(lambda: list(tmp_path.glob("runs/*/trials/*.safetensors")))
        (victim, *_) = below(process.pid, "ray::_stream")
        os.kill(victim, signal.SIGKILL)
        said = told(process)
    assert process.returncode == 0, said
    assert "is tried again" in said
    assert contents(one(tmp_path)) == contents(usual)
    assert listing(one(tmp_path)) == listing(usual)


def test_a_lost_node(tmp_path, usual, monkeypatch):
    """Of a cluster that asks for a token, as it listens to the network.

    Before that a task that fits into both nodes alone; after it a wrong token.
    """
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.two_nodes"],
        env={k: v for k, v in environment().items() if k != "CUDA_VISIBLE_DEVICES"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as cluster:
        options = (*RAY, "--gpus-per-task", "1", "--trials-per-task", "2")
        options = (*options, "--address", cluster.stdout.readline().strip())
        too_large = amfast(*options, "--gpus-per-task", "2", "--outdir", "none", cwd=tmp_path)
        with start_amfast(*options, cwd=tmp_path) as process:
            kept = "runs/*/under-way-*.safetensors"
            wait_for(lambda: len(list(tmp_path.glob(kept))) == 2 or process.poll() is not None)
            print("lose it", file=cluster.stdin, flush=True)
            said = told(process)
        monkeypatch.setenv("RAY_AUTH_TOKEN", "fedcba9876543210" * 4)
        refused = amfast(*options, "--outdir", "refused", cwd=tmp_path)
        cluster.stdin.close()
    assert too_large.returncode == 1
    assert "room for a task of 1 cpus and 2 gpus: they have 1 and 1" in too_large.stderr
    assert process.returncode == 0, said
    assert "3 shards for Ray, 2 at a time" in said
    assert "is tried again" in said
    assert contents(one(tmp_path)) == contents(usual)
    assert refused.returncode == 1
    assert "amfast: no Ray answers at" in refused.stderr and "Traceback" not in refused.stderr


def test_a_cluster_that_others_reach(tmp_path, invoke, monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    said = "the Ray cluster at 192.0.2.7:6379 can be reached from other machines.*RAY_AUTH_MODE"
    assert_refused(invoke(*RAY, "--address", "192.0.2.7:6379"), 2, said)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--cpus-per-task", "0"), 2, "a task with 0.0 cpus and None gpus"),
        (("--gpus-per-task", "-1"), 2, "a task with 1.0 cpus and -1.0 gpus"),
        (("--cpus-per-task", "inf"), 2, "a task with inf cpus and None gpus"),
        (("--gpus-per-task", "nan"), 2, "a task with 1.0 cpus and nan gpus"),
        (("--address", "nonsense"), 2, "--address 'nonsense': give HOST:PORT of the cluster's"),
        (("--address", "http://127.0.0.1:9"), 2, "--address 'http://127.0.0.1:9': give HOST:PORT"),
        (("--address", "127.0.0.1:99999"), 2, "--address '127.0.0.1:99999': give HOST:PORT"),
        (("--devices", "cpu"), 2, "--devices is for --executor local, and this is ray"),
    ],
)
def test_refused(options, code, said, tmp_path, invoke):
    assert_refused(invoke(*RAY, *options), code, said)
    assert listing(tmp_path) == []


def test_without_ray(tmp_path, invoke, monkeypatch):
    monkeypatch.setattr("amfast.cluster.ray.find_spec", lambda name: None)
    assert_refused(invoke(*RAY), 2, r"--executor ray needs Ray: pip install 'amfast\[ray\]'")


def test_no_room_and_nobody_there(tmp_path, invoke):
    answer = invoke(*RAY, "--cpus-per-task", "5000")
    assert "amfast: no node of the Ray cluster has room for a task of 5000 cpus" in answer.stderr
    assert answer.returncode == 1
    nobody = invoke(*RAY, "--address", "127.0.0.1:1", "--outdir", "nobody")
    assert "amfast: no Ray answers at 127.0.0.1:1: ConnectionRefusedError" in nobody.stderr
    assert nobody.returncode == 1
