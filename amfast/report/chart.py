"""Numbers brought to the coordinates of a chart; the template draws it as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

#: Of every chart, in the units of its viewBox; and of the plot within it.
WIDTH, HEIGHT = 480, 340
LEFT, RIGHT, TOP, BOTTOM = 58, 464, 14, 288

#: Where a label may be, and about how large its letters are.
_PLACES = (("start", 8, -6), ("start", 8, 14), ("end", -8, -6), ("end", -8, 14))
_LETTER, _LINE = 6.8, 12


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
    #: Of the label, from the mark; with "end" it ends there.
    offset: tuple[float, float] = (8, -6)
    anchor: str = "start"


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


def place_labels(marks: Sequence[Mark]) -> list[Mark]:
    """Labels beside their marks where they cover no other; those that would are left out."""
    taken: list[tuple[float, float, float, float]] = []
    placed = []
    for mark in marks:
        place = None
        for anchor, x, y in _PLACES if mark.label else ():
            width = _LETTER * len(mark.label)
            left = mark.x + x - (width if anchor == "end" else 0)
            box = (left, mark.y + y - _LINE, left + width, mark.y + y)
            if box[0] >= LEFT and box[2] <= WIDTH and not any(_meet(box, t) for t in taken):
                place = replace(mark, offset=(x, y), anchor=anchor)
                taken.append(box)
                break
        placed.append(place or replace(mark, label=""))
    return placed


def _meet(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


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
    labels = _labels(ticks, step)
    axis.ticks.extend((axis(tick), label) for tick, label in zip(ticks, labels, strict=True))
    return axis


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * nice for nice in (1, 2, 5, 10) if power * nice >= least * (1 - 1e-9))


def _labels(ticks: Sequence[float], step: float) -> list[str]:
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{tick + 0.0:.{digits}f}".replace("-", "\N{MINUS SIGN}") for tick in ticks]
