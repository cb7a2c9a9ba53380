"""Gradients out of fp16's range cost the trial they belong to a step, and the others nothing."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from amfast.ops.resize_to_classifier import ImageInput
from amfast.optimize.engine import optimize_trials
from amfast.optimize.objective import TargetLogProb
from amfast.optimize.precision import FP16_LOSS_SCALE, initial_loss_scale
from amfast.optimize.slots import Slots
from tests.optimize.conftest import LinearClassifier, LinearGenerator
from tests.optimize.test_engine import SETTINGS, TRIALS, same, starts


class ThroughHalf(torch.autograd.Function):
    """Nothing forward; the gradient passes through fp16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:  # type: ignore[override]
        return dy.half().to(dy.dtype)


class Steep(TargetLogProb):
    """As if class 2 were ``steepness`` times as steep as the others."""

    def __init__(self, classifier: LinearClassifier, steepness: float) -> None:
        super().__init__(classifier)
        self.steepness = steepness

    def __call__(self, images: Tensor, targets: Tensor, input: ImageInput = "image") -> Tensor:
        half = ThroughHalf.apply(images)  # type: ignore[no-untyped-call]
        rows = super().__call__(half, targets, input)
        return rows * torch.where(targets == 2, self.steepness, 1.0)


@pytest.mark.parametrize("steepness", [3e3, 3e9])
def test_only_the_trials_out_of_range_pay(steepness: float) -> None:
    settings = replace(SETTINGS, loss_scale=FP16_LOSS_SCALE, images_per_pass=6)
    flat = [trial for trial in TRIALS if trial.class_id != 2]
    kept: list[Slots] = []

    def run(trials: list[Any], **options: Any) -> list[Any]:
        objective = Steep(LinearClassifier(), steepness)
        found = optimize_trials(LinearGenerator(), objective, trials, starts, settings, **options)
        return sorted(found, key=lambda result: result.trial)

    results = run(TRIALS, on_resample=kept.append)
    together = [result for result in results if result.trial in flat]
    assert all(map(same, together, run(flat)))
    steep = [result for result in results if result.trial not in flat]
    if steepness == 3e9:  # beyond fp16 whatever the scale
        assert all(result.failed_at == 10 for result in steep)  # 1024 has been halved ten times
        return
    assert not any(result.failed for result in steep)
    last = kept[-1]
    for trial, scale, updates, step in zip(
        last.trials, last.loss_scale, last.adam_steps, last.step, strict=True
    ):
        skipped = int(step - updates)
        assert scale == FP16_LOSS_SCALE / 2**skipped
        assert (skipped > 0) == (trial not in flat)


def test_who_needs_a_loss_scale() -> None:
    half, whole = SimpleNamespace(dtype=torch.float16), SimpleNamespace(dtype=torch.bfloat16)
    assert initial_loss_scale(whole, object()) == 1
    assert initial_loss_scale(whole, half) == initial_loss_scale(half, whole) == FP16_LOSS_SCALE
