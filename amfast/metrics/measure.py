"""What a metric comes to: one number with its interval, and what it was taken over."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor

from amfast.errors import UsageError

Unit = Literal["images", "pairs"]

#: How often values are drawn anew for an interval.
RESAMPLES = 1000

#: Of an interval.
_LEVEL = 0.95

#: Elements of the table of counts that is held at once.
_COUNTS = 1 << 22


@dataclass(frozen=True)
class Measure:
    """A metric's ``value`` over ``n`` images or pairs, as ``unit`` says.

    ``seed`` is that of whatever was drawn for it, ``weights`` the fingerprint of the network whose
    features it is of, None for a metric without one. ``low`` and ``high`` bound a 95 %
    interval, None where there is none. ``std`` is over splits, for metrics that have them. ``note``
    is a sentence on what the value is not good for, empty as a rule.

    Raises ``UsageError`` for a value or bound that is not finite, which JSON does not have.
    """

    name: str
    value: float
    n: int
    unit: Unit
    seed: int
    weights: str | None = None
    low: float | None = None
    high: float | None = None
    std: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        numbers = (self.value, self.low, self.high, self.std)
        if not all(number is None or math.isfinite(number) for number in numbers):
            raise UsageError(
                f"{self.name} came to {self.value} (interval {self.low} to {self.high}, std "
                f"{self.std}); a measure is finite: look for NaN in what it was taken over."
            )

    def to_json(self) -> dict[str, str | float | int | None]:
        return asdict(self)


def measure_mean(
    name: str,
    values: Tensor,
    *,
    unit: Unit,
    seed: int,
    weights: str | None = None,
    note: str = "",
    resamples: int = RESAMPLES,
) -> Measure:
    """The mean of values ``[N]``, one of each image or pair, with its interval.

    A single value has none. Pairs that share images are drawn anew as if they did not, so their
    interval is for the images at hand. Raises ``UsageError`` as ``bootstrap_means`` does.
    """
    low, high = None, None
    rows = _checked(values, 1)
    if len(rows) > 1:
        low, high = percentile_interval(bootstrap_means(rows, seed=seed, resamples=resamples))
    return Measure(name, float(rows.mean()), len(rows), unit, seed, weights, low, high, note=note)


def bootstrap_means(values: Tensor, *, seed: int, resamples: int = RESAMPLES) -> Tensor:
    """Means of values drawn anew with replacement: ``[N]`` -> ``[B]``, ``[N, S]`` -> ``[B, S]``.

    In float64, on the CPU: B is ``resamples``, each of N draws (Efron, "Bootstrap methods: another
    look at the jackknife", Annals of Statistics 1979). Equal seeds give equal draws for values of
    equal N. Raises ``UsageError`` for another shape, no values, no resamples, NaN or infinity.
    """
    if resamples < 1:
        raise UsageError(f"resamples is {resamples}; it must be at least 1.")
    rows = _checked(values, 1, 2)
    stream = torch.Generator().manual_seed(seed)
    parts = []
    for part in torch.arange(resamples).split(max(1, _COUNTS // len(rows))):
        drawn = torch.randint(len(rows), (len(part), len(rows)), generator=stream)
        counts = torch.zeros(drawn.shape, dtype=torch.float64)
        counts.scatter_add_(1, drawn, torch.ones_like(counts))
        parts.append(counts @ rows)
    return torch.cat(parts) / len(rows)


def bootstrap_statistic(
    values: Tensor,
    statistic: Callable[[Tensor], Tensor],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> tuple[float, float]:
    """The interval of a function of the means of what is known of each image, ``[N, S]``.

    ``statistic`` takes means ``[B, S]`` and gives ``[B]``, all resamples at once. Raises
    ``UsageError`` as ``bootstrap_means`` does.
    """
    means = bootstrap_means(_checked(values, 2), seed=seed, resamples=resamples)
    return percentile_interval(statistic(means))


def percentile_interval(replicates: Tensor) -> tuple[float, float]:
    """The middle 95 % of replicates ``[B]``: their 2.5 and 97.5 percentiles."""
    edge = (1 - _LEVEL) / 2
    edges = torch.tensor([edge, 1 - edge], dtype=torch.float64)
    low, high = torch.quantile(_checked(replicates, 1), edges).tolist()
    return low, high


def _checked(values: Tensor, *dims: int) -> Tensor:
    """The values in float64 on the CPU."""
    if values.dim() not in dims or len(values) == 0:
        wanted = " or ".join("[N]" if dim == 1 else "[N, S]" for dim in dims)
        raise UsageError(f"values are {list(values.shape)}; they must be {wanted}, N at least 1.")
    rows = values.detach().double().cpu()
    broken = int((~rows.isfinite()).reshape(len(rows), -1).any(dim=1).sum())
    if broken:
        raise UsageError(
            f"{broken} of {len(rows)} values are NaN or infinite; leave out what they belong to."
        )
    return rows
