"""Ctrl-C twice: at any moment, and surely while the first is being dealt with."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from tests.command import SMALL, contents, listing, wait_for
from tests.forks import Fork, Forks

#: Seconds from the first to the second; a person takes a tenth, a key held down less.
PAUSES = (0.0, 0.005, 0.1)
#: Taking leave, which is short, for as long as it takes to interrupt it.
SLOW = """
import time
import amfast.cli.run

amfast.cli.run._how_to_resume = lambda happened, run_dir: time.sleep(60)
"""


def interrupt(fork: Fork, pause: float) -> None:
    os.kill(fork.pid, signal.SIGINT)
    time.sleep(pause)
    with suppress(ProcessLookupError):  # the first was enough by now
        os.kill(fork.pid, signal.SIGINT)


def trials(cwd: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cwd.glob("runs/0*/trials/*.safetensors")}


def test_at_any_moment(tmp_path: Path, amfast_forks: Forks, finished) -> None:
    """While networks load, in the midst of trials, and while scores are made."""
    options, kept = (*SMALL, "--resume"), {}
    cwd = tmp_path / "runs of one"
    cwd.mkdir()
    for said in ("", "run directory: ", "step 6/6", "scoring"):
        for pause in PAUSES:
            fork = amfast_forks.start(*options, cwd=cwd)
            wait_for(lambda said=said, fork=fork: said in fork.stderr.read_text())
            interrupt(fork, pause)
            told = (fork.wait(), fork.stderr.read_text())
            assert told[0] == 130 and "Traceback" not in told[1], told
            assert kept.items() <= trials(cwd).items()
            kept = trials(cwd)
    assert kept
    assert amfast_forks.start(*options, cwd=cwd).wait() == 0
    (run_dir,) = cwd.glob("runs/0*")
    assert contents(run_dir) == contents(finished.run_dir)
    assert listing(run_dir) == listing(finished.run_dir)


def test_while_the_first_is_dealt_with(tmp_path: Path, amfast_forks: Forks) -> None:
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    fork = amfast_forks.start(*SMALL, cwd=cwd, before=SLOW)
    wait_for(lambda: trials(cwd))
    interrupt(fork, 1.0)
    assert fork.wait() == 130
    said = fork.stderr.read_text()
    assert said.endswith("amfast: interrupted again and left at once; what was finished is kept\n")
    assert "Traceback" not in said
