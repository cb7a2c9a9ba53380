from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from amfast.classifiers.protocol import ClassifierSpec
from amfast.config import RunConfig, make_config
from amfast.generators.protocol import GeneratorSpec
from amfast.optimize.engine import TrialResult
from amfast.optimize.slots import MEASURES
from amfast.optimize.trials import Trial
from amfast.runs import RunDirectory, RunFacts

STEPS, WIDTH = 3, 5
NOBODY = 65534

MakeResult = Callable[..., TrialResult]
StartPython = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def generator() -> GeneratorSpec:
    return GeneratorSpec("embedded", 64, WIDTH, 12, (-0.9, 0.8), "00aa", ("ring", "star"))


@pytest.fixture
def facts(generator: GeneratorSpec) -> RunFacts:
    third = (0.5, 0.5, 0.5)
    classifier = ClassifierSpec("shapes", 64, third, third, ("ring", "star", "heart"), "11bb")
    return RunFacts.gather(generator, classifier, torch.device("cpu"), "fp32")


@pytest.fixture
def config() -> RunConfig:
    return make_config(classes=(0, 2), trials=2, steps=STEPS, seed=7)


@pytest.fixture
def run(tmp_path: Path, config: RunConfig, facts: RunFacts) -> RunDirectory:
    return RunDirectory.create(tmp_path / "runs", config, facts)


@pytest.fixture
def make_result() -> MakeResult:
    def make(
        class_id: int = 2,
        index: int = 1,
        failed_at: int | None = None,
        stopped_at: int | None = None,
    ) -> TrialResult:
        trial = Trial(class_id, index, 7)
        stream = trial.random("test")
        history = torch.randn(
            MEASURES, STEPS, generator=stream
        ).T  # as the engine's: not contiguous
        if failed_at is not None:
            history[failed_at:] = torch.nan
        start = torch.randn(WIDTH, generator=stream)
        return TrialResult(trial, start, start + 1, history, failed_at, stopped_at)

    return make


@pytest.fixture
def start_python() -> Iterator[StartPython]:
    """Start another Python process on a script, with pipes for its input and output."""
    with contextlib.ExitStack() as stack:

        def start(script: str, *arguments: object) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-c", script, *map(str, arguments)],
                cwd=Path(__file__).parents[2],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture
def disk_full() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """No file of this process may hold a byte: writes fail in the system, as on a full disk."""

    @contextlib.contextmanager
    def limit() -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit


@contextlib.contextmanager
def directory_of_mode(mode: int) -> Iterator[Path]:
    """A directory whose mode binds this process: root, whom modes do not stop, becomes nobody."""
    me = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(mode)
        if me == 0:
            os.seteuid(NOBODY)
        try:
            yield path
        finally:
            os.seteuid(me)
            path.chmod(0o700)


@pytest.fixture
def read_only() -> Iterator[Path]:
    with directory_of_mode(0o555) as path:
        yield path


@pytest.fixture
def unreadable() -> Iterator[Path]:
    with directory_of_mode(0) as path:
        yield path
