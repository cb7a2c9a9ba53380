"""A tiny run of the embedded pair, made once, and copies of it to write into."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from amfast.generators import Generator, load_generator
from amfast.optimize.engine import TrialResult
from amfast.optimize.trials import plan_trials
from amfast.runs import RunDirectory
from amfast.runs.session import execute, prepare
from tests.browser import chromium, visit

__all__ = ["chromium", "visit"]

#: Shown as text, never obeyed: markup, a path, a terminal's escape, right-to-left override.
HOSTILE = {
    3: "<script>alert(1)</script>",
    11: '../../x" onclick="y\x1b[2J\u202egnp.exe',
}

EditRun = Callable[..., Path]


@pytest.fixture(scope="session")
def generator() -> Generator:
    return load_generator("embedded", device="cpu", dtype="fp32")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trials of star and of hourglass, four steps each."""
    job = prepare(classes="star,hourglass", trials=2, steps=4, latents=2, device="cpu")
    return execute(job, tmp_path_factory.mktemp("runs")).directory.path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def edit(run: Path) -> EditRun:
    """Change a JSON file of the copy by a function, and give the run."""

    def change(name: str, how: Callable[[dict[str, Any]], object]) -> Path:
        value = json.loads((run / name).read_text())
        how(value)
        (run / name).write_text(json.dumps(value))
        return run

    return change


@pytest.fixture
def large(generator: Generator, finished: Path, tmp_path: Path) -> Callable[[int, int], Path]:
    """A run of so many classes and trials of each, without having optimised any."""

    def make(classes: int, trials: int) -> Path:
        source = RunDirectory.open(finished)
        config = source.config.model_copy(
            update={"classes": tuple(range(classes)), "trials": trials, "steps": 20}
        )
        source.facts.class_names.update({i: f"class {i}" for i in range(12, classes)})
        made = RunDirectory.create(tmp_path / "large", config, source.facts)
        planned = plan_trials(config.classes, trials, 0)
        table = generator.class_embeddings
        stream = torch.Generator().manual_seed(0)
        history = torch.rand(20, 3, generator=stream)
        for trial in planned:
            added = torch.randn(table.shape[1], generator=stream)
            made.write(TrialResult(trial, table[0], table[trial.index % 12] + 0.05 * added, history))
        score = {"target_prob": 0.9, "accuracy": 0.9, "ms_ssim": 0.3, "images": 10, "pairs": 20}
        made.write_summary(
            {
                "trials": len(planned),
                "failed": 0,
                "seconds_per_trial": 1.5,
                "classes": [
                    {
                        "class_id": i,
                        "name": source.facts.class_names[i],
                        "original": {**score, "distance": 0.2} if i < 12 else None,
                        "best": 0,
                        "trials": [
                            {
                                "trial": t,
                                "failed_at": None,
                                "stopped_at": None,
                                "score": {**score, "distance": 0.2 + 0.001 * (i % 7) + 0.01 * t},
                            }
                            for t in range(trials)
                        ],
                    }
                    for i in config.classes
                ],
            }
        )
        return made.path

    return make
