"""When a trial may end before its last step, by its own history alone."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import Tensor

from amfast.errors import UsageError

#: Takes a trial's history so far ``[s, 2]`` (log-probability, probability) and the length of a
#: period in steps, ``s`` being a multiple of it; true ends the trial.
StopRule = Callable[[Tensor, int], bool]

#: Periods without a better mean log-probability after which a trial has reached its plateau, and
#: how much better, in nats, counts.
PATIENCE, GAIN = 3, 0.02


def never(history: Tensor, period: int) -> bool:
    """``none``: every trial takes all its steps, as in the paper."""
    return False


def plateau(history: Tensor, period: int) -> bool:
    """``plateau``: no period of the last ``PATIENCE`` beats all those before by ``GAIN`` nats."""
    means = history[:, 0].unflatten(0, (-1, period)).mean(dim=1)
    if len(means) <= PATIENCE:
        return False
    return bool(means[-PATIENCE:].max() < means[:-PATIENCE].max() + GAIN)


def reached(prob: float) -> StopRule:
    """``prob=P``: the mean target probability over the last period is at least ``prob``."""

    def rule(history: Tensor, period: int) -> bool:
        return bool(history[-period:, 1].mean() >= prob)

    return rule


def parse_stop(text: str) -> StopRule:
    """The rule that ``none``, ``plateau`` or ``prob=P`` names; ``UsageError`` for anything else."""
    if text == "none":
        return never
    if text == "plateau":
        return plateau
    if match := re.fullmatch(r"prob=([0-9.]+(?:[eE][-+]?\d+)?)", text):
        try:
            prob = float(match[1])
        except ValueError:
            prob = 0.0
        if 0 < prob <= 1:
            return reached(prob)
    raise UsageError(
        f"{text!r} is no stopping rule: use none, plateau, or prob=P with P in (0, 1], "
        "such as prob=0.95"
    )
