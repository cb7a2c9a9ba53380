from __future__ import annotations

import fcntl
import os
import socket

import pytest

from amfast.errors import RunError
from amfast.runs.lock import locked

HOLD = """
import sys
from pathlib import Path
from amfast.runs.lock import locked

with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.readline()
print("released", flush=True)
sys.stdin.readline()
"""


def test_second_process_is_refused_until_the_first_lets_go(tmp_path, start_python):
    path = tmp_path / "lock"
    holder = start_python(HOLD, path)
    assert holder.stdout.readline() == "locked\n"
    refusal = rf"in use by process {holder.pid} on {socket.gethostname()} since 2\d\d\d-"
    for _ in range(2):  # being refused disturbs nothing
        with pytest.raises(RunError, match=refusal), locked(path):
            pass
    print(file=holder.stdin, flush=True)
    assert holder.stdout.readline() == "released\n"
    with locked(path):
        assert str(os.getpid()) in path.read_text()
    assert path.read_text() == ""


def test_killed_holder_leaves_no_lock(tmp_path, start_python):
    path = tmp_path / "lock"
    holder = start_python(HOLD, path)
    assert holder.stdout.readline() == "locked\n"
    holder.kill()
    holder.wait()
    assert str(holder.pid) in path.read_text()
    with locked(path):
        assert str(holder.pid) not in path.read_text()


def test_released_when_the_work_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "lock"):
        _ = 1 / 0
    with locked(tmp_path / "lock"):
        pass


def test_holder_that_has_not_written_its_name(tmp_path):
    path = tmp_path / "lock"
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="in use by another process"), locked(path):
            pass


@pytest.mark.parametrize("content", ["5", "{}", "[1]", '{"pid"', "\xff"])
def test_holder_that_is_no_holder(tmp_path, content):
    path = tmp_path / "lock"
    with locked(path):
        path.write_text(content, encoding="latin-1")
        with pytest.raises(RunError, match="in use by another process"), locked(path):
            pass


def test_lock_that_cannot_be_made(read_only):
    with pytest.raises(RunError, match="cannot lock .*permission denied"), locked(read_only / "l"):
        pass


def test_lock_on_a_full_disk(tmp_path, disk_full):
    with disk_full(), pytest.raises(RunError, match="file too large"), locked(tmp_path / "lock"):
        pass
    with locked(tmp_path / "lock"):
        pass
