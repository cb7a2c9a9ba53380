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
#: The last stage, which is short, for as long as it takes to find it.
LONG_SCORING = """
import time
import amfast.runs.session as session

def slowly(*arguments, score=session.score_trials):
    time.sleep(60)
    return score(*arguments)

session.score_trials = slowly
"""
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


def has_come_to(stage: str, text: str) -> bool:
    """Or past it: where all trials were finished by the time of an interrupt, none takes a step."""
    return stage in text or "scoring" in text


def trials(cwd: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cwd.glob("runs/0*/trials/*.safetensors")}


def test_at_any_moment(tmp_path: Path, amfast_forks: Forks, finished) -> None:
    """While networks load, in the midst of trials, and while scores are made."""
    options, kept = (*SMALL, "--resume"), {}
    cwd = tmp_path / "runs of one"
    cwd.mkdir()
    for said in ("", "run directory: ", "step 6/6", "scoring"):
        for pause in PAUSES:
            fork = amfast_forks.start(*options, cwd=cwd, before=LONG_SCORING)
            wait_for(lambda said=said, fork=fork: has_come_to(said, fork.stderr.read_text()))
            interrupt(fork, pause)
            code, text = fork.wait(), fork.stderr.read_text()
            assert code == 130 and "Traceback" not in text, (code, text)
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
