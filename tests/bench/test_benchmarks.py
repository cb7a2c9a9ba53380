"""Every op's benchmark runs: the kernel and the reference, compared and called, not timed."""

from __future__ import annotations

import subprocess
import sys

from tests.command import REPOSITORY, environment


def test_every_ops_benchmark_runs() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "bench", "-q", "-p", "no:cacheprovider"),
            *("-o", "python_files=bench_*.py", "--benchmark-disable"),
            *("-k", "not compiled and not trial and not biggan"),
        ],
        cwd=REPOSITORY,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_every_op_has_a_benchmark() -> None:
    ops = {path.stem for path in (REPOSITORY / "amfast" / "ops").glob("[a-z]*.py")}
    timed = {path.stem.removeprefix("bench_") for path in REPOSITORY.glob("bench/bench_*.py")}
    assert ops == timed - {"trial"} != set()
