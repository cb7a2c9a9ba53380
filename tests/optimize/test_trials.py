from __future__ import annotations

import torch

from amfast.optimize.initializers import METHODS, initial_embeddings, parse_init
from amfast.optimize.trials import Trial, draw_latents, plan_trials
from tests.optimize.conftest import LinearGenerator

CPU = torch.device("cpu")


def test_a_trials_numbers_do_not_depend_on_its_batch() -> None:
    trials = plan_trials([4, 9], 3, seed=7)
    together = draw_latents(trials, [2] * 6, 5, 6, CPU)
    assert together.shape == (6, 5, 6)
    for row, trial in enumerate(trials):
        assert torch.equal(draw_latents([trial], [2], 5, 6, CPU)[0], together[row])


def test_every_key_gives_other_numbers() -> None:
    trials = [Trial(1, 0, 0), Trial(1, 1, 0), Trial(2, 0, 0), Trial(1, 0, 1), Trial(11, 0, 0)]
    draws = [draw_latents([t], [r], 1, 4, CPU) for t in trials for r in (0, 1)]
    draws += [torch.randn(1, 1, 4, generator=t.random("start")) for t in trials]
    assert len({tuple(d.flatten().tolist()) for d in draws}) == len(draws)


def test_latents_are_standard_normal() -> None:
    z = draw_latents([Trial(0, i, 0) for i in range(50)], [0] * 50, 40, 30, CPU)
    assert abs(z.mean()) < 0.02
    assert abs(z.std() - 1) < 0.02


def test_starts_are_the_papers(generator: LinearGenerator) -> None:
    trials = [Trial(1, i, 0) for i in range(2000)]
    table = generator.class_embeddings
    for name, base in (("am-s", table[1]), ("am-l", table.mean(dim=0))):
        method = METHODS[name]  # type: ignore[index]
        start = parse_init("method", method)
        found = initial_embeddings(start, method.noise, table, trials, own={1: 1}, top={})
        noise = found - base
        assert noise.mean(dim=0).abs().max() < 0.01
        assert abs(noise.std() - 0.1) < 0.003
    assert METHODS["am-s"].learning_rate == 0.01
    assert METHODS["am-l"].learning_rate == 0.1
