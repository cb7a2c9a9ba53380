"""How many operators a step dispatches: each is a launch on a device, unless a graph replays it."""

from __future__ import annotations

import pytest
import torch
from torchvision.models import alexnet

from amfast.classifiers.protocol import wrap_module
from amfast.generators.architectures import random_biggan
from amfast.generators.biggan import BigGANGenerator
from amfast.generators.reference import BigGANConfig
from amfast.optimize.objective import TargetLogProb
from amfast.optimize.slots import Slots
from amfast.optimize.step import Step, StepSettings
from amfast.optimize.trials import plan_trials
from tests.operators import count_dispatched

#: BigGAN-256 but for its widths, which no operator depends on.
NARROW_256 = BigGANConfig((16, 16, 8, 8, 8, 8, 8), attention_block=4, num_classes=3)
#: What the frozen and folded plain loop dispatches, and what the engine's step does.
PLAIN, ENGINE = 365, 181


def test_a_step_dispatches_at_most_half_of_the_plain_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator, AlexNet, the loss, the backward, Adam, the clip and the history, in one pass.

    The CPU goes through attention in parts, to save memory; elsewhere it is one operator.
    """
    monkeypatch.setattr("amfast.generators.frozen_layers._QUERIES", 1 << 20)
    cpu = torch.device("cpu")
    generator = BigGANGenerator(
        random_biggan(NARROW_256), name="g", labels="abc", device=cpu, dtype=torch.float32
    )
    classifier = wrap_module(alexnet(num_classes=3), device=cpu, dtype=torch.float32)
    settings = StepSettings(learning_rate=0.1, latents=1, steps_per_latents=9, images_per_pass=2)
    with Step(generator, TargetLogProb(classifier), settings, on_note=print) as step:
        trials = plan_trials([0, 1], 1, seed=0)
        step.load(Slots.begin(trials, generator.class_embeddings[:2], steps=9))
        step()
        calls = count_dispatched(step)
    for once in ("amfast::target_log_prob", "amfast::resize_to_classifier", "aten::scatter_"):
        assert calls[once] == 1
    assert calls["aten::tanh"] == 1  # for the images' distance alone, which has no gradient
    assert "aten::tanh_backward" not in calls
    assert sum(calls.values()) <= ENGINE <= PLAIN // 2
