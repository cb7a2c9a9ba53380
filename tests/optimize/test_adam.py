from __future__ import annotations

import pytest
import torch

from amfast.optimize.adam import RowAdam


def fresh(like: torch.Tensor, learning_rate: float) -> RowAdam:
    steps = like.new_zeros(len(like), 1, dtype=torch.float64)
    return RowAdam(torch.zeros_like(like), torch.zeros_like(like), steps, learning_rate)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_torch_adam_row_by_row(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    start = torch.randn(4, 7, dtype=dtype)
    ours, adam = start.clone(), fresh(start, 0.1)
    theirs = [row.clone().requires_grad_() for row in start]
    optimizers = [torch.optim.Adam([row], lr=0.1) for row in theirs]
    active = torch.ones(4, dtype=torch.bool)
    for step in range(200):
        gradient = torch.randn_like(start) * 10.0 ** (step % 7 - 5)
        ours = adam.step(ours, gradient, active)
        for row, optimizer, g in zip(theirs, optimizers, gradient, strict=True):
            row.grad = g.clone()
            optimizer.step()
    tolerance = {torch.float64: 1e-13, torch.float32: 1e-5}[dtype]
    torch.testing.assert_close(ours, torch.stack(theirs).detach(), rtol=tolerance, atol=tolerance)


def test_an_inactive_row_stands_still_and_keeps_its_clock() -> None:
    torch.manual_seed(0)
    start = torch.randn(2, 3, dtype=torch.float64)
    both, one = fresh(start, 0.1), fresh(start[:1], 0.1)
    c, alone = start, start[:1]
    for step in range(10):
        gradient = torch.randn(2, 3, dtype=torch.float64)
        on = step % 2 == 0
        gradient[0] = gradient[0] if on else torch.nan
        c = both.step(c, gradient, torch.tensor([on, True]))
        if on:
            alone = one.step(alone, gradient[:1], torch.tensor([True]))
        else:
            assert torch.equal(c[0], alone[0])
    torch.testing.assert_close(c[:1], alone)
    assert both.steps.flatten().tolist() == [5, 10]


def test_moves_against_the_gradient_by_the_learning_rate_at_first() -> None:
    adam = fresh(torch.zeros(1, 2, dtype=torch.float64), 0.01)
    moved = adam.step(
        torch.zeros(1, 2, dtype=torch.float64),
        torch.tensor([[3.0, -0.2]], dtype=torch.float64),
        torch.tensor([True]),
    )
    torch.testing.assert_close(
        moved, torch.tensor([[-0.01, 0.01]], dtype=torch.float64), rtol=1e-6, atol=0
    )
