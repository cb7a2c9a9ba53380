"""The charts of a report, from its data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean

import torch
from torch import Tensor

from amfast.api import rows_by_name
from amfast.generators.protocol import Generator
from amfast.report.chart import Chart, Guide, Mark, horizontal, place_labels, vertical
from amfast.report.data import EvaluationData, RunData
from amfast.report.embedding_map import principal_plane

#: Beyond so many classes their names would cover the map.
_NAMED = 24
#: Beyond so many trials their curves would cover each other: a band and the middle one do.
_CURVES = 60
_SETS = {"original": "as trained", "am": "optimised", "mixed": "mixed", "real": "real"}


def trials_chart(run: RunData) -> Chart:
    """Every trial and original: pairwise distance against target probability (after Fig. 7)."""
    marks = list(_score_marks(run))
    originals = [mark for mark in marks if mark.kind == "original"]
    chart = _scatter(marks, "target probability", "pairwise distance")
    if originals:
        chart.guides.append(_across(chart, "x", "original", fmean(m.x for m in originals)))
        chart.guides.append(_across(chart, "y", "original", fmean(m.y for m in originals)))
    return _placed(chart)


def evaluation_chart(evaluation: EvaluationData) -> Chart | None:
    """The evaluated classes: diversity against accuracy, with what real images have.

    None where it was not measured by both.
    """
    known = evaluation.overall.get("original", {}) | evaluation.overall.get("am", {})
    accuracy = next((name for name in known if name.startswith("top1[")), None)
    lpips = next((name for name in known if name.startswith("lpips[")), None)
    diversity = lpips or ("ms_ssim" if "ms_ssim" in known else None)
    if accuracy is None or diversity is None:
        return None

    def value(measures: dict[str, float]) -> tuple[float, float]:
        diverse = measures[diversity]
        return measures[accuracy], diverse if lpips else 1 - diverse

    marks = []
    for name, sets in evaluation.classes:
        for key, kind in _SETS.items():
            if {accuracy, diversity} <= sets.get(key, {}).keys():
                x, y = value(sets[key])
                marks.append(Mark(x, y, key, f"{name}, {kind}: {x:.2f}, {y:.3f}"))
    title = "LPIPS" if lpips else "1 \N{MINUS SIGN} MS-SSIM"
    chart = _scatter(marks, "top-1 accuracy", title)
    for key in ("original", "am", "real"):
        if {accuracy, diversity} <= evaluation.overall.get(key, {}).keys():
            _, y = value(evaluation.overall[key])
            chart.guides.append(_across(chart, "y", key, y))
    return _placed(chart)


def map_chart(generator: Generator, run: RunData) -> tuple[Chart, tuple[float, float]] | None:
    """Originals, trials and the mean of all class embeddings on their principal plane.

    With the shares of the variance that its axes show; None where no trial has an embedding.
    """
    table = generator.class_embeddings.float().cpu()
    rows = rows_by_name(generator.spec.labels, run.facts.class_names)
    found = [
        (of_class, trial, trial.embedding)
        for of_class in run.classes
        for trial in of_class.trials
        if trial.score is not None and trial.embedding is not None
    ]
    if not found or table.shape[1] < 2:
        return None
    vectors = torch.stack([embedding for _, _, embedding in found])
    plane = principal_plane(torch.cat([table, vectors]))
    marks = []
    known = [of_class for of_class in run.classes if of_class.class_id in rows]
    for of_class, trial, (x, y) in zip(
        [c for c, _, _ in found], [t for _, t, _ in found], plane(vectors).tolist(), strict=True
    ):
        marks.append(Mark(x, y, "am", f"{of_class.name}, trial {trial.index}", trial.number))
    if known:
        own = plane(table[[rows[of_class.class_id] for of_class in known]]).tolist()
        for of_class, (x, y) in zip(known, own, strict=True):
            label = of_class.name if len(known) <= _NAMED else ""
            marks.append(Mark(x, y, "original", f"{of_class.name}, as trained", label=label))
    ((x, y),) = plane(table.mean(dim=0, keepdim=True)).tolist()
    marks.append(Mark(x, y, "mean", "mean of all class embeddings"))
    first, second = plane.shares
    chart = _placed(
        _scatter(marks, f"first component ({first:.0%})", f"second component ({second:.0%})")
    )
    if len(found) <= _CURVES:
        starts = {mark.title: mark for mark in chart.marks if mark.kind != "am"}
        for mark, (of_class, _, _) in zip(chart.marks, found, strict=False):
            start = starts.get(f"{of_class.name}, as trained", chart.marks[-1])
            chart.lines.append(("spoke", f"{start.x:g},{start.y:g} {mark.x:g},{mark.y:g}"))
    return replace(chart, marks=place_labels(chart.marks)), plane.shares


def trajectory_chart(run: RunData, column: int, title: str) -> Chart | None:
    """A column of the histories by step; None where no trial has it."""
    found = [
        t.history[:, column].double()
        for t in run.trials
        if t.history is not None and t.history.shape[1] > column
    ]
    if not found:
        return None
    values = torch.stack(found)
    steps = list(range(values.shape[1]))
    chart = Chart(horizontal("step", steps), vertical(title, values.flatten().tolist()))
    shown = values.isfinite().any(dim=0)
    steps = [step for step in steps if shown[step]]
    values = values[:, shown]
    if len(values) <= _CURVES:
        chart.lines.extend(("each", chart.points(steps, row)) for row in values.tolist())
    else:
        low, high = (values.nanquantile(q, dim=0).tolist() for q in (0.1, 0.9))
        chart.bands.append(chart.points([*steps, *reversed(steps)], [*low, *reversed(high)]))
    chart.lines.append(("median", chart.points(steps, values.nanmedian(dim=0).values.tolist())))
    return chart


def curve(history: Tensor | None, column: int, points: int) -> list[float | None]:
    """At most ``points`` values of a column of a trial's history; None where one is not finite."""
    if history is None or history.shape[1] <= column:
        return []
    steps = len(history)
    chosen = torch.linspace(0, steps - 1, min(points, steps)).round().long()
    return [
        round(value, 3) if math.isfinite(value) else None
        for value in history[chosen, column].tolist()
    ]


def _score_marks(run: RunData) -> Iterator[Mark]:
    for of_class in run.classes:
        for trial in of_class.trials:
            if trial.score is not None:
                x, y = trial.score.target_prob, trial.score.distance
                title = f"{of_class.name}, trial {trial.index}: {x:.2f}, {y:.3f}"
                yield Mark(x, y, "am", title, trial.number)
    for of_class in run.classes:
        if of_class.original is not None:
            x, y = of_class.original.target_prob, of_class.original.distance
            yield Mark(x, y, "original", f"{of_class.name}, as trained: {x:.2f}, {y:.3f}")


def _scatter(marks: Sequence[Mark], x: str, y: str) -> Chart:
    return Chart(
        horizontal(x, (mark.x for mark in marks)),
        vertical(y, (mark.y for mark in marks)),
        marks=list(marks),
    )


def _across(chart: Chart, along: str, kind: str, value: float) -> Guide:
    axis = chart.x if along == "x" else chart.y
    return Guide(along, axis(value), kind, f"mean {_SETS[kind]} {value:.2f}")


def _placed(chart: Chart) -> Chart:
    """The marks from values to coordinates."""
    marks = [replace(mark, x=chart.x(mark.x), y=chart.y(mark.y)) for mark in chart.marks]
    return replace(chart, marks=marks)
