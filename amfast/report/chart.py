"""Numbers brought to the coordinates of a chart; the template draws it as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

#: Of every chart, in the units of its viewBox; and of the plot within it.
WIDTH, HEIGHT = 480, 340
LEFT, RIGHT, TOP, BOTTOM = 58, 464, 14, 288


@dataclass(frozen=True)
class Axis:
    """A scale from ``low`` to ``high`` onto ``start`` to ``end``; ``ticks`` are labels' places."""

    title: str
    low: float
    high: float
    start: float
    end: float
    ticks: list[tuple[float, str]]

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


@dataclass(frozen=True)
class Mark:
    """A point; ``kind`` is its colour and shape. ``trial`` is the number of the trial it opens."""

    x: float
    y: float
    kind: str
    title: str
    trial: int | None = None
    label: str = ""


@dataclass(frozen=True)
class Guide:
    """A line across the plot at ``position`` on the axis ``along``: "x" or "y"."""

    along: str
    position: float
    kind: str
    label: str


@dataclass(frozen=True)
class Chart:
    """``lines`` are (kind, points of a polyline), ``bands`` points of a polygon."""

    x: Axis
    y: Axis
    marks: list[Mark] = field(default_factory=list)
    guides: list[Guide] = field(default_factory=list)
    lines: list[tuple[str, str]] = field(default_factory=list)
    bands: list[str] = field(default_factory=list)

    def points(self, xs: Iterable[float], ys: Iterable[float]) -> str:
        """The points of a line, as SVG has them; those that are not finite are left out."""
        return " ".join(
            f"{self.x(x):g},{self.y(y):g}"
            for x, y in zip(xs, ys, strict=True)
            if math.isfinite(x) and math.isfinite(y)
        )


def horizontal(title: str, values: Iterable[float]) -> Axis:
    return _axis(title, values, LEFT, RIGHT)


def vertical(title: str, values: Iterable[float]) -> Axis:
    return _axis(title, values, BOTTOM, TOP)


def _axis(title: str, values: Iterable[float], start: float, end: float) -> Axis:
    """A scale that holds every finite value, between round numbers."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if high - low < 1e-9 * max(1.0, abs(low)):
        low, high = low - 0.5, high + 0.5
    step = _round_step((high - low) / 5)
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    count = round((high - low) / step)
    ticks = [low + i * step for i in range(count + 1)]
    axis = Axis(title, low, high, start, end, [])
    axis.ticks.extend(
        (axis(tick), label) for tick, label in zip(ticks, _labels(ticks, step), strict=True)
    )
    return axis


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * nice for nice in (1, 2, 5, 10) if power * nice >= least * (1 - 1e-9))


def _labels(ticks: Sequence[float], step: float) -> list[str]:
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{tick + 0.0:.{digits}f}".replace("-", "\N{MINUS SIGN}") for tick in ticks]
