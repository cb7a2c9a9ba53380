from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

import amfast
from amfast.optimize.memory import images_per_pass, plan_passes, saved_bytes_per_image
from amfast.optimize.objective import TargetLogProb


@given(st.integers(1, 70), st.integers(1, 30), st.integers(1, 200))
def test_passes_cover_every_image_once_and_stay_in_bounds(
    trials: int, latents: int, bound: int
) -> None:
    seen = torch.zeros(trials, latents)
    for part in plan_passes(trials, latents, bound):
        block = seen[part.trials, part.latents]
        assert 1 <= block.numel() <= bound
        block += 1
    assert (seen == 1).all()


@given(st.integers(1, 70), st.integers(1, 30), st.integers(1, 200))
def test_whole_trials_are_spread_evenly(trials: int, latents: int, bound: int) -> None:
    parts = plan_passes(trials, latents, bound)
    rows = {part.trials.stop - part.trials.start for part in parts[:-1]}
    assert len(rows) <= 1 or bound < latents


def test_saved_bytes_are_of_the_order_of_the_activations() -> None:
    generator = amfast.load_generator("embedded", device="cpu")
    objective = TargetLogProb(amfast.load_classifier("embedded", device="cpu"))
    per_image = saved_bytes_per_image(generator, objective)
    assert 1e5 < per_image < 1e7
    assert images_per_pass(generator, objective, 20) == 20
