from __future__ import annotations

import pytest
import torch
from torch import Tensor

from amfast.errors import UsageError
from amfast.optimize.stopping import GAIN, PATIENCE, parse_stop


def history(*periods: float, length: int = 4) -> Tensor:
    """Log-probabilities and probabilities that are the same throughout a period."""
    values = torch.tensor(periods).repeat_interleave(length)
    return torch.stack([values, values.exp()], dim=1)


def test_none_never_stops() -> None:
    assert not parse_stop("none")(history(-1.0, 0.0, 0.0, 0.0, 0.0, 0.0), 4)


def test_prob_asks_for_the_last_periods_mean() -> None:
    rule = parse_stop("prob=0.5")
    assert rule(history(-3.0, -0.6), 4)
    assert not rule(history(-0.6, -0.8), 4)
    mixed = history(-3.0, -0.6)
    mixed[-1, 1] = 0.0
    assert not rule(mixed, 4)


def test_plateau_waits_until_nothing_better_comes() -> None:
    rule = parse_stop("plateau")
    better = [-1.0, -0.5]
    flat = [-0.5 + GAIN / 2] * PATIENCE
    assert not rule(history(*better), 4)
    assert not rule(history(*better, *flat[:-1]), 4)
    assert rule(history(*better, *flat), 4)
    assert not rule(history(*better, *flat[:-1], -0.5 + 2 * GAIN), 4)
    assert not rule(history(*[-0.5] * PATIENCE), 4)  # nothing before them to compare with


@pytest.mark.parametrize(
    "text",
    ["", "never", "prob", "prob=", "prob=0", "prob=1.01", "prob=nan", "prob=1.2.3", "prob=-1"],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no stopping rule: use none, plateau, or prob=P"):
        parse_stop(text)


def test_a_probability_in_scientific_notation() -> None:
    assert parse_stop("prob=5e-1")(history(-0.6), 4)
