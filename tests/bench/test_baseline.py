"""What amfast is measured against does the same work, and the comparison would notice if not."""

from __future__ import annotations

import copy

import pytest
import torch

from amfast.classifiers import load_classifier
from amfast.generators.architectures import random_biggan
from amfast.generators.reference import BigGANConfig
from bench.baseline import frozen_compiled_loop, plain_loop
from bench.contest import Problem, check, contest, in_turns

CONFIG = BigGANConfig((16, 8, 8), attention_block=0, num_classes=5, embedding_dim=6, chunk_dim=3)


@pytest.fixture(autouse=True)
def not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda module, **_: module)


def test_contestants_start_from_a_checked_comparison() -> None:
    problem = Problem(random_biggan(CONFIG), "embedded", trials=2, latents=3, steps=2)
    runs = contest(problem, compiled=True)
    assert list(runs) == ["engine", "plain", "compiled"]
    seconds = in_turns(runs, rounds=2)
    assert all(taken > 0 for taken in seconds.values())


def test_the_two_loops_agree_step_by_step() -> None:
    judge = load_classifier("embedded", device="cpu")
    torch.manual_seed(0)
    start, latents = 0.1 * torch.randn(6).double(), torch.randn(4, CONFIG.chunk_dim * 3).double()
    # In float64, for Adam's first steps take a gradient's sign, however near it is to nothing.
    networks = random_biggan(CONFIG).double(), copy.deepcopy(judge.module).double(), judge.spec
    plain = plain_loop(*networks, start=start, latents=latents, target=1)
    frozen = frozen_compiled_loop(
        *networks, start=start, latents=latents, target=1, dtype=torch.float64
    )
    for _ in range(3):
        torch.testing.assert_close(frozen(), plain(), rtol=0, atol=1e-6)
    assert all(not weight.requires_grad for weight in judge.module.parameters())


def test_a_difference_is_noticed() -> None:
    moved, start = torch.ones(4), torch.zeros(4)
    check(moved, lambda: torch.full((4,), 1.001), start, 0.02)
    with pytest.raises(AssertionError, match="part ways"):
        check(moved, lambda: torch.full((4,), 1.1), start, 0.02)
