"""The recorded step on a CUDA device: the same numbers, and nothing that waits for the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from amfast.classifiers.protocol import ModuleClassifier
from amfast.embedded.shapenet import ShapeNet
from amfast.errors import UsageError
from amfast.generators.architectures import random_biggan
from amfast.generators.biggan import BigGANGenerator
from amfast.optimize.engine import Progress, Settings, TrialResult, optimize_trials
from amfast.optimize.objective import TargetLogProb
from amfast.optimize.stopping import parse_stop
from amfast.optimize.trials import Trial, plan_trials
from tests.classifiers.test_protocol import spec
from tests.generators.conftest import CONFIGS

pytestmark = pytest.mark.gpu

SETTINGS = Settings(learning_rate=0.1, steps=14, latents=4, steps_per_latents=7, images_per_pass=8)
TRIALS = plan_trials([0, 2], 3, seed=3)


class Waiting(ShapeNet):
    """Looks at a number on the way, which the device has to be waited for."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits if float(logits.sum()) < 1e30 else logits * 0


def networks(
    dtype: torch.dtype, network: type[ShapeNet] = ShapeNet
) -> tuple[BigGANGenerator, ModuleClassifier]:
    cuda, model = torch.device("cuda"), random_biggan(CONFIGS["embedded"])
    labels = [str(i) for i in range(model.config.num_classes)]
    generator = BigGANGenerator(model, name="g", labels=labels, device=cuda, dtype=dtype)
    torch.manual_seed(0)
    return generator, ModuleClassifier(network(5).eval(), spec(64), cuda, dtype)


def run(
    dtype: torch.dtype,
    settings: Settings = SETTINGS,
    network: type[ShapeNet] = ShapeNet,
    trials: Sequence[Trial] = TRIALS,
    **options: Any,
) -> list[TrialResult]:
    generator, classifier = networks(dtype, network)
    mean = generator.class_embeddings.mean(dim=0)

    def start(trials: Sequence[Trial]) -> Tensor:
        noise = [0.1 * torch.randn(128, generator=trial.random("start")) for trial in trials]
        return mean + torch.stack(noise).to(mean)

    objective = TargetLogProb(classifier)
    found = optimize_trials(generator, objective, trials, start, settings, **options)
    return sorted(found, key=lambda result: result.trial)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_recorded_step_gives_the_same_numbers(dtype: torch.dtype) -> None:
    usual = run(dtype, replace(SETTINGS, graph="off"))
    recorded = run(dtype, replace(SETTINGS, graph="on"))
    for a, b in zip(recorded, usual, strict=True):
        torch.testing.assert_close(a.embedding, b.embedding, rtol=0, atol=0)
        torch.testing.assert_close(a.history, b.history, rtol=0, atol=0)


def test_a_slot_that_is_refilled_needs_no_new_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    recordings: list[object] = []
    graph = torch.cuda.graph
    monkeypatch.setattr(torch.cuda, "graph", lambda *a, **k: recordings.append(a) or graph(*a, **k))
    settings = replace(SETTINGS, slots=3, stop=parse_stop("prob=0.21"), graph="on")
    together = run(torch.float32, settings)
    assert len(recordings) <= 2 * 3  # two for every number of slots
    alone = run(torch.float32, replace(settings, graph="off"))
    for a, b in zip(together, alone, strict=True):
        assert a.stopped_at == b.stopped_at
        torch.testing.assert_close(a.embedding, b.embedding, rtol=0, atol=0)


def test_nothing_in_a_step_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in a step as usual nor in a recorded one: only at a resample is the host told."""
    from amfast.optimize import step

    whole = step.Step.__call__

    def watched(self: step.Step) -> None:
        torch.cuda.set_sync_debug_mode("error")
        try:
            whole(self)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    run(torch.float32)  # libraries may wait the first time
    monkeypatch.setattr(step.Step, "__call__", watched)
    seen: list[Progress] = []
    run(torch.float32, replace(SETTINGS, graph="off"), on_progress=seen.append)
    assert [progress.last for progress in seen] == [7, 14]


def test_a_network_that_waits_runs_without_a_recording() -> None:
    notes: list[str] = []
    found = run(torch.float32, network=Waiting, on_note=notes.append)
    assert [note for note in notes if "cannot be recorded as a CUDA graph" in note] == notes != []
    usual = run(torch.float32, replace(SETTINGS, graph="off"))
    for a, b in zip(found, usual, strict=True):
        torch.testing.assert_close(a.embedding, b.embedding, rtol=0, atol=0)
    with pytest.raises(UsageError, match="cannot be recorded as a CUDA graph.*use --compile off"):
        run(torch.float32, replace(SETTINGS, graph="on"), network=Waiting)


def test_out_of_memory_on_the_device_halves_the_pass() -> None:
    settings = replace(SETTINGS, images_per_pass=24)
    usual = run(torch.float32, replace(settings, images_per_pass=4), trials=TRIALS)
    notes: list[str] = []
    _, total = torch.cuda.mem_get_info()
    try:
        run(torch.float32, settings)  # what the libraries take once
        torch.cuda.empty_cache()
        need = torch.cuda.max_memory_reserved()
        torch.cuda.set_per_process_memory_fraction(0.6 * need / total)
        found = run(torch.float32, settings, on_note=notes.append)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert notes and notes[0].startswith("out of memory with 24 images in a pass")
    for a, b in zip(found, usual, strict=True):
        torch.testing.assert_close(a.history[:3], b.history[:3], rtol=1e-3, atol=1e-3)
