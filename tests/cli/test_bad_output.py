"""Where results cannot be written, or nobody takes them."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command import (
    SMALL,
    amfast,
    assert_refused,
    can_mount,
    command_line,
    contents,
    environment,
    listing,
)


def in_mount(options: str, where: Path, script: str) -> subprocess.CompletedProcess[str]:
    """A shell script that sees a tmpfs at ``where``, alone: the mount ends with it."""
    where.mkdir()
    mounted = f'mount -t tmpfs -o {options} tmpfs "$0"; {script}'
    return subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", mounted, where, *command_line()],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )


def limit_file_size(size: int) -> Callable[[], None]:
    """Every write beyond ``size`` bytes fails in the system, for root as well."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_read_only_output(tmp_path):
    if can_mount():
        where = tmp_path / "disk"
        done = in_mount(
            "ro", where, '"$@" run --classes 0 --outdir "$0"; e=$?; ls -A "$0"; exit $e'
        )
        assert_refused(done, 1, "cannot make a run directory in .*disk: read-only file system")
    else:
        done = amfast("run", "--classes", "0", "--outdir", "/sys/amfast", cwd=tmp_path)
        assert_refused(done, 1, "cannot make a run directory in /sys/amfast: ")


def test_full_output(tmp_path):
    (tmp_path / "runs").mkdir()
    done = amfast(
        "run", "--classes", "0", cwd=tmp_path, measured=False, preexec_fn=limit_file_size(0)
    )
    assert_refused(done, 1, "cannot write .*run.json: file too large|cannot make a run directory")
    assert listing(tmp_path) == ["runs"]
    deep = ("run", "--classes", "0", "--outdir", "made/for/this")
    done = amfast(*deep, cwd=tmp_path, measured=False, preexec_fn=limit_file_size(0))
    assert_refused(done, 1, "cannot write .*run.json: file too large|cannot make a run directory")
    assert listing(tmp_path) == ["runs"]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_output_that_nobody_can_take(tmp_path, options):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command_line("classes", *options),
            cwd=tmp_path,
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=300,
        )
    assert (done.returncode, done.stderr) == (1, "amfast: cannot go on: No space left on device\n")


def test_output_that_fills_up(tmp_path, finished):
    """What was finished is whole and kept; with more room the run goes on to the same bytes."""
    kept = tmp_path / "kept"
    if can_mount():
        go = " ".join(['"$@"', *SMALL, '--outdir "$0"'])
        done = in_mount(
            "size=16k",
            tmp_path / "disk",
            f'{go}; e=$?; find "$0"/0001* -type f; mount -o remount,size=9m "$0"; '
            f'{go} --quiet --resume || e=9; cp -r "$0"/0001* {kept}; exit $e',
        )
        left = [Path(line).name for line in done.stdout.splitlines()]
        assert {"run.json", "0000-00.safetensors"} <= set(left)
        assert "embeddings.safetensors" not in left
    else:
        size = limit_file_size(8192)  # room for everything but the picture
        done = amfast(*SMALL, cwd=tmp_path, preexec_fn=size)
        (run_dir,) = (tmp_path / "runs").iterdir()
        left = listing(run_dir)
        assert not amfast(*SMALL, "--quiet", "--resume", cwd=tmp_path).returncode
        shutil.copytree(run_dir, kept)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and "amfast: cannot write" in done.stderr
    assert not [name for name in left if name.endswith(".tmp")]
    assert contents(kept) == contents(finished.run_dir)
