"""The real command, as a user runs it, and what it leaves on disk."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]

#: Three classes of two trials, in batches of one: a second of work, and stages to stop it between;
#: without the report, which tests/report is about and which would take longer than all of it.
SMALL = (
    *("run", "--classes", "0-2", "--trials", "2", "--steps", "6", "--latents", "2"),
    *("--batch-embeddings", "1", "--device", "cpu", "--no-report"),
)


def command_line(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "amfast", *map(str, arguments)]


def environment(measured: bool = True) -> dict[str, str]:
    """One thread, no CUDA device, and this tree's amfast wherever the command is run.

    A command that is interrupted must not be ``measured``: coverage.py takes a lock of its own when
    it first meets a file, and a KeyboardInterrupt there leaves it held, so that the next new file
    is waited for without end. Nor one that is run where coverage must not write.
    """
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **{k: v for k, v in os.environ.items() if measured or not k.startswith("COVERAGE_")},
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "COLUMNS": "200",
    }


def amfast(
    *arguments: object, cwd: Path, measured: bool = True, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        command_line(*arguments),
        cwd=cwd,
        env=environment(measured),
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )


@contextmanager
def start_amfast(*arguments: object, cwd: Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """The command while it runs, to be interrupted or killed; a test that fails kills it.

    It hears SIGINT even where the suite itself was started in the background and does not.
    """
    with subprocess.Popen(
        command_line(*arguments),
        cwd=cwd,
        env=environment(measured=False),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    ) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def told(process: subprocess.Popen[str], seconds: float = 300) -> str:
    """What a started command says on stderr until its end, which must come within ``seconds``."""
    return process.communicate(timeout=seconds)[1]


def assert_refused(done: subprocess.CompletedProcess[str], code: int, *said: str) -> None:
    """It exits with ``code``, silent but for one line on stderr that matches all of ``said``."""
    assert done.stdout == ""
    assert done.stderr.startswith("amfast: ")
    assert done.stderr.count("\n") == 1 and done.stderr.endswith("\n")
    assert done.returncode == code, done.stderr
    for pattern in said:
        assert re.search(pattern, done.stderr), (pattern, done.stderr)


def can_mount() -> bool:
    """Whether a test may mount a small disk of its own."""
    probe = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return shutil.which("unshare") is not None and not subprocess.run(probe, check=False).returncode


def listing(folder: Path) -> list[str]:
    """Everything below ``folder``, hidden files too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def contents(run: Path) -> dict[str, bytes]:
    """The files whose bytes a run's configuration decides."""
    paths = [*run.glob("trials/*"), run / "embeddings.safetensors", run / "comparison.png"]
    return {str(path.relative_to(run)): path.read_bytes() for path in paths}


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    """Until ``condition`` holds; ``TimeoutError`` where it never does."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{condition} did not hold within {seconds} seconds")
        time.sleep(0.001)
