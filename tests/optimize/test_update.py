"""The update of every row against torch's Adam, and what happens to rows that are not finite."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from amfast.optimize.slots import Slots
from amfast.optimize.trials import plan_trials
from amfast.optimize.update import Update

WIDE = (-100.0, 100.0)


def bounds(clip: tuple[float, float], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    least, most = torch.tensor(clip, dtype=dtype)[:, None].expand(-1, 7)
    return least, most


def fresh(rows: int, dtype: torch.dtype = torch.float64, *, loss_scale: float = 1.0) -> Slots:
    torch.manual_seed(0)
    start = torch.randn(rows, 7, dtype=dtype)
    return Slots.begin(plan_trials([0], rows, seed=0), start, 200, loss_scale)


def step(
    slots: Slots,
    gradient: Tensor,
    log_prob: Tensor | None = None,
    clip: tuple[float, float] = WIDE,
    weight_decay: float = 0.0,
    distance: Tensor | None = None,
) -> None:
    log_prob = torch.zeros(len(gradient), 3) if log_prob is None else log_prob
    update = Update(200, 0.1, bounds(clip, slots.start.dtype), weight_decay)
    update(slots, log_prob, torch.ones(len(gradient)) if distance is None else distance, gradient)


@pytest.mark.parametrize("weight_decay", [0.0, 0.9])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_torch_adam_row_by_row(dtype: torch.dtype, weight_decay: float) -> None:
    slots = fresh(4, dtype)
    theirs = [row.clone().requires_grad_() for row in slots.start]
    optimizers = [torch.optim.Adam([row], lr=0.1, weight_decay=weight_decay) for row in theirs]
    for count in range(200):
        gradient = torch.randn_like(slots.start) * 10.0 ** (count % 7 - 5)
        step(slots, gradient, weight_decay=weight_decay)
        for row, optimizer, g in zip(theirs, optimizers, gradient, strict=True):
            row.grad = -g
            optimizer.step()
    tolerance = {torch.float64: 1e-13, torch.float32: 1e-5}[dtype]
    expected = torch.stack(theirs).detach()
    torch.testing.assert_close(slots.embeddings, expected, rtol=tolerance, atol=tolerance)
    assert slots.adam_steps.tolist() == slots.step.tolist() == [200] * 4


def test_moves_along_the_gradient_by_the_learning_rate_at_first_and_clips() -> None:
    slots = fresh(1)
    step(slots, torch.full((1, 7), -3.0, dtype=torch.float64))
    torch.testing.assert_close(slots.embeddings, slots.start - 0.1, rtol=1e-6, atol=0)
    step(slots, torch.full((1, 7), -3.0, dtype=torch.float64), clip=(-0.2, 0.3))
    assert slots.embeddings.min() >= -0.2
    assert slots.embeddings.max() <= 0.3


def test_history_goes_to_each_rows_own_step() -> None:
    slots = fresh(2)
    slots.step.copy_(torch.tensor([0, 5]))
    log_prob = torch.tensor([[-1.0, -3.0], [-0.5, -0.5]])
    step(slots, torch.ones_like(slots.start), log_prob, distance=torch.tensor([0.25, 0.5]))
    torch.testing.assert_close(slots.history[0, 0, 0], torch.tensor(-2.0))
    torch.testing.assert_close(slots.history[1, 5, 1], torch.tensor(-0.5).exp())
    assert slots.history[0, 0, 2] == 0.25 and slots.history[1, 5, 2] == 0.5
    assert slots.history.isnan().sum() == 2 * 200 * 3 - 6
    assert slots.step.tolist() == [1, 6]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("where", ["log_prob", "distance", "gradient"])
def test_a_row_that_is_not_finite_fails_alone(where: str, bad: float) -> None:
    slots, alone = fresh(3), fresh(3).rows([2])
    for count in range(4):
        gradient = torch.randn(3, 7, dtype=torch.float64)
        log_prob, distance = torch.zeros(3, 5), torch.ones(3)
        if count == 2:
            {"log_prob": log_prob, "distance": distance[:, None], "gradient": gradient}[where][
                1, -1
            ] = bad
            before = slots.rows([1])
        step(slots, gradient, log_prob, distance=distance)
        step(alone, gradient[2:], log_prob[2:])
    assert slots.active.tolist() == [True, False, True]
    assert torch.equal(slots.embeddings[1:2], before.embeddings)
    assert torch.equal(slots.adam_mean[1:2], before.adam_mean)
    assert slots.history[1, :2].isfinite().all()
    assert slots.history[1, 2:].isnan().all()
    assert torch.equal(slots.embeddings[2:], alone.embeddings)


def test_a_gradient_out_of_range_halves_its_own_rows_scale() -> None:
    slots = fresh(2, loss_scale=4.0)
    gradient = torch.ones(2, 7, dtype=torch.float64)
    overflow = gradient.clone()
    overflow[1, 0] = torch.inf
    for scale, active in ((2.0, True), (1.0, True), (1.0, False)):
        before = slots.rows([1])
        step(slots, overflow)
        assert slots.loss_scale.tolist() == [4.0, scale]
        assert slots.active.tolist() == [True, active]
        assert torch.equal(slots.embeddings[1:], before.embeddings)
    assert slots.adam_steps.tolist() == [3, 0]
    assert slots.history[1, :2].isfinite().all()
    assert slots.history[1, 2].isnan().all()


def test_an_infinite_step_fails_and_leaves_the_embedding_finite() -> None:
    slots = fresh(1, torch.float32)
    update = Update(200, 1e39, bounds(WIDE, torch.float32))
    update(
        slots, torch.zeros(1, 3), torch.ones(1), torch.zeros(1, 7)
    )  # zero times infinity, which no clip mends
    assert not slots.active.any()
    assert torch.equal(slots.embeddings, slots.start)
    assert slots.adam_steps.item() == 0


def test_a_row_goes_on_after_a_skipped_step() -> None:
    slots = fresh(1, loss_scale=8.0)
    step(slots, torch.full((1, 7), torch.nan, dtype=torch.float64))
    step(slots, torch.full((1, 7), 2.0, dtype=torch.float64))
    torch.testing.assert_close(slots.embeddings, slots.start + 0.1, rtol=1e-6, atol=1e-9)
    assert slots.active.all()
    assert slots.adam_steps.item() == 1
    assert slots.step.item() == 2
