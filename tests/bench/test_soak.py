"""A hundred trials in one process keep memory, files, threads and trials; what does not is said."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from bench import soak
from bench.soak import Sample, complaints, memory


def test_a_hundred_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    smaller = {"latents": 1, "steps": 8, "steps_per_latents": 2, "batch_embeddings": 4}
    monkeypatch.setattr(soak, "OPTIONS", {**soak.OPTIONS, **smaller, "stop": "prob=0.5"})
    found = soak.soak(tmp_path, trials=9, every=0.1)
    assert complaints(found) == []
    assert found["trials"] == sum(found["trials_by_steps"].values()) == 108
    assert len(found["trials_by_steps"]) > 1 < found["most_descriptors"]


def test_what_grows_is_what_comes_after_the_warm_up() -> None:
    numbers = [(1, 400.0), (100, 500.0), (101, 490.0), (800, 520.0), (1000, 900.0)]
    samples = [Sample(finished, rss, 1, 4) for finished, rss in numbers]
    assert memory(samples, 1000) == {"warm_up_mb": 500.0, "peak_mb": 520.0, "growth": 0.04}


def test_every_loss_is_a_sentence() -> None:
    sample = Sample(0, 500.0, 3, 4)
    sound = {
        "lost": 0,
        "duplicated": 0,
        "failed": 0,
        "growth": 0.0499,
        "warm_up_mb": 500.0,
        "peak_mb": 526.0,
        "before": asdict(sample),
        "after": asdict(sample),
    }
    assert complaints(sound) == []
    unsound = {**sound, "lost": 1, "duplicated": 2, "failed": 3, "growth": 0.052}
    assert complaints({**unsound, "after": asdict(Sample(9, 500.0, 4, 5))}) == [
        "1 trials are lost",
        "2 trials are duplicated",
        "3 trials are failed",
        "4 threads at the end and 3 before",
        "5 descriptors at the end and 4 before",
        "memory grew by 5.2% after the first 10% of the trials, from 500.0 to 526.0 MB",
    ]
