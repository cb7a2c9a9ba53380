"""A tiny run of the embedded pair, made once, and copies of it to write into."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from amfast.runs.session import execute, prepare


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trials of star and of hourglass, four steps each."""
    job = prepare(classes="star,hourglass", trials=2, steps=4, latents=2, device="cpu")
    return execute(job, tmp_path_factory.mktemp("runs")).directory.path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "run"))
