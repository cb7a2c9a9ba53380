"""A run to report, changes to it, and runs that are nowhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from amfast.generators import Generator, GeneratorSpec, load_generator
from amfast.metrics.embedding import EmbeddingScore
from amfast.report.data import ClassData, RunData, TrialData, Verdict, read_run
from tests.browser import chromium, visit
from tests.tiny_run import finished, run

__all__ = ["chromium", "finished", "run", "visit"]

#: Shown as text, never obeyed: markup, a path, a terminal's escape, right-to-left override.
HOSTILE = {
    3: "<script>alert(1)</script>",
    11: '../../x" onclick="y\x1b[2J\u202egnp.exe',
}

EditRun = Callable[..., Path]


@pytest.fixture(scope="session")
def generator() -> Generator:
    return load_generator("embedded", device="cpu", dtype="fp32")


@pytest.fixture
def edit(run: Path) -> EditRun:
    """Change a JSON file of the copy by a function, and give the run."""

    def change(name: str, how: Callable[[dict[str, Any]], object]) -> Path:
        value = json.loads((run / name).read_text())
        how(value)
        (run / name).write_text(json.dumps(value))
        return run

    return change


class Noise:
    """Images that no format makes small, of any resolution: the worst that a page can be given."""

    def __init__(self, resolution: int) -> None:
        labels = tuple(f"class {i}" for i in range(12))
        self.spec = GeneratorSpec("noise", resolution, 8, 4, (-1.0, 1.0), "0" * 16, labels)
        self.class_embeddings = torch.eye(12)[:, :8]
        self._drawn = torch.rand(8, 3, resolution, resolution) * 2 - 1

    def prepare_latents(self, latents: Tensor) -> Tensor:
        return latents

    def __call__(self, embeddings: Tensor, latents: Tensor) -> Tensor:
        count = embeddings.shape[0] * latents.shape[1]
        return self._drawn.repeat(-(-count // len(self._drawn)), 1, 1, 1)[:count]


def imagined(finished: Path, classes: int, trials: int) -> RunData:
    """A run of ``Noise`` that is nowhere: classes from the twelfth on are new to it."""
    base = read_run(finished)
    names = {i: f"class {i}" for i in range(classes)}
    found = []
    for i, name in names.items():
        original = EmbeddingScore(0.5, 0.5, 0.2, 0.4, 10, 20) if i < 12 else None
        of_class = []
        for t in range(trials):
            score = EmbeddingScore(0.9, 0.9, 0.1 + 0.001 * (i % 97) + 0.01 * t, 0.3, 10, 20)
            gain = None if original is None else score.distance - original.distance
            vector, history = torch.full((8,), 0.01 * t), torch.full((200, 3), -0.125 * t)
            of_class.append(TrialData(i * trials + t, t, score, gain, None, None, vector, history))
        verdict: Verdict = "gained" if original else "new"
        found.append(ClassData(i, i, name, verdict, "", original, of_class[-1], of_class))
    facts = replace(base.facts, class_names=names)
    return replace(base, facts=facts, classes=found)
