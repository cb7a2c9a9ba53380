"""Finished runs of narrow random generators, written without optimising anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from amfast.classifiers import load_classifier
from amfast.config import make_config
from amfast.generators import FrozenGenerator, load_generator
from amfast.generators.architectures import random_biggan, random_deep
from amfast.generators.reference_deep import BigGANDeepConfig
from amfast.optimize.engine import TrialResult
from amfast.optimize.trials import plan_trials
from amfast.runs import RunDirectory, RunFacts
from tests.generators.conftest import CONFIGS

LABELS = load_classifier("embedded", device="cpu").spec.labels
WIDTH = 8
#: The narrowest BigGAN-deep that pytorch-pretrained-biggan builds too.
DEEP = BigGANDeepConfig(
    widths=(64, 32, 16, 8, 4),
    attention_stage=2,
    num_classes=len(LABELS),
    embedding_dim=WIDTH,
    latent_dim=WIDTH,
)
#: The best trial of each class, as the runs' summaries have it; class 4 has failed altogether.
BEST = {2: 1, 0: 0}


def write(path: Path, model: nn.Module, **metadata: str) -> Path:
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, path, {"labels": json.dumps(LABELS), **metadata})
    return path


@pytest.fixture(scope="session")
def deep_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("deep") / "deep.safetensors", random_deep(DEEP))


@pytest.fixture(scope="session")
def biggan_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = random_biggan(CONFIGS["embedded"])
    return write(tmp_path_factory.mktemp("biggan") / "biggan.safetensors", model)


MakeRun = Callable[..., RunDirectory]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    def make(
        weights: Path | None, *, classifier: str = "embedded", best: dict[int, int | None] = BEST
    ) -> RunDirectory:
        config = make_config(
            weights=None if weights is None else str(weights),
            classifier=classifier,
            classes=(*best, 4),
            trials=2,
            steps=3,
        )
        spec = load_generator("embedded", weights=weights, device="cpu").spec
        judge = load_classifier(classifier, device="cpu").spec
        facts = RunFacts.gather(spec, judge, torch.device("cpu"), "fp32")
        run = RunDirectory.create(tmp_path / "runs", config, facts)
        trials = plan_trials(config.classes, config.trials, config.seed)
        for trial in trials:
            embedding = 0.3 * torch.randn(spec.embedding_dim, generator=trial.random("test"))
            failed_at = 1 if trial.class_id == 4 else None
            run.write(
                TrialResult(
                    trial, torch.zeros_like(embedding), embedding, torch.zeros(3, 3), failed_at
                )
            )
        run.collect(trials)
        classes = [{"class_id": i, "best": b} for i, b in (*best.items(), (4, None))]
        run.write_summary({"classes": classes})
        return run

    return make


def embedding(run: RunDirectory, class_id: int, trial: int) -> Tensor:
    """``[E]``, from the run's own file of that trial."""
    (found,) = run.finished([t for t in plan_trials([class_id], 2, 0) if t.index == trial])[
        0
    ].values()
    return found.embedding


def show(generator: FrozenGenerator, vector: Tensor, z: Tensor) -> Tensor:
    return generator(vector[None], z[None])
