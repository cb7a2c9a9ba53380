"""Finished runs of the embedded generator, written without optimising anything."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from amfast.classifiers import load_classifier
from amfast.config import make_config
from amfast.evaluation.evaluate import Target
from amfast.evaluation.networks import Networks, load_networks
from amfast.generators import Generator, load_generator
from amfast.optimize.engine import TrialResult
from amfast.optimize.trials import plan_trials
from amfast.runs import RunDirectory, RunFacts

CPU = torch.device("cpu")
STAR, RING, HOURGLASS = 3, 4, 11

MakeRun = Callable[..., RunDirectory]
MakeTarget = Callable[..., Target]


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where what is known of real sets is kept, for one test alone."""
    place = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("AMFAST_HOME", str(place))
    return place


def score(target_prob: float, distance: float, ms_ssim: float = 0.5) -> dict[str, Any]:
    """As ``summary.json`` has it."""
    values = {"target_prob": target_prob, "distance": distance, "ms_ssim": ms_ssim}
    return {**values, "accuracy": target_prob, "images": 10, "pairs": 20}


def entry(
    class_id: int,
    name: str,
    scores: Mapping[int, dict[str, Any] | None],
    original: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A class in ``summary.json``; a trial without a score failed at step 1."""
    trials = [
        {"trial": t, "failed_at": None if s else 1, "stopped_at": None, "score": s}
        for t, s in scores.items()
    ]
    return {"class_id": class_id, "name": name, "original": original, "best": 0, "trials": trials}


@pytest.fixture(scope="session")
def generator() -> Generator:
    return load_generator("embedded", device=CPU, dtype="fp32")


@pytest.fixture(scope="session")
def networks() -> Networks:
    return load_networks(generator="embedded", device=CPU)


@pytest.fixture
def make_target(generator: Generator) -> MakeTarget:
    """A class's embedding, moved to that of another, a well one by default."""

    def make(class_id: int, like: int = RING, embedding: Tensor | None = None) -> Target:
        name = generator.spec.labels[class_id]
        moved = generator.class_embeddings[like] if embedding is None else embedding
        return Target(class_id, name, 0, moved, "a test's")

    return make


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Two trials of each class: the first stays at a class's own embedding, the second at ring's.

    ``failed`` are (class id, trial); ``scores`` are the trials' of a class that did not fail.
    """

    def make(
        class_ids: tuple[int, ...] = (STAR, RING),
        *,
        classifier: str = "embedded",
        failed: Collection[tuple[int, int]] = (),
        names: Mapping[int, str] | None = None,
    ) -> RunDirectory:
        config = make_config(classifier=classifier, classes=class_ids, trials=2, steps=3)
        maker = load_generator("embedded", device=CPU)
        judge = load_classifier(classifier, device=CPU).spec
        facts = RunFacts.gather(maker.spec, judge, CPU, "fp32")
        facts.class_names.update(names or {})
        run = RunDirectory.create(tmp_path / "runs", config, facts)
        trials = plan_trials(class_ids, 2, 0)
        for trial in trials:
            row = maker.class_embeddings[RING if trial.index else trial.class_id]
            failed_at = 1 if (trial.class_id, trial.index) in failed else None
            run.write(TrialResult(trial, row, row, torch.zeros(3, 3), failed_at))
        run.collect(trials)
        run.write_summary(
            {
                "classes": [
                    entry(
                        i,
                        facts.class_names[i],
                        {
                            t: None if (i, t) in failed else score(0.9, 0.2 + 0.1 * t)
                            for t in range(2)
                        },
                        score(0.7, 0.1),
                    )
                    for i in class_ids
                ]
            }
        )
        return run

    return make
