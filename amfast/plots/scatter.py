"""Figure 7 of the paper: the diversity of classes against their realism."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, FiniteFloat, ValidationError

from amfast.errors import RunError
from amfast.plots.canvas import COLOURS, MARKERS, NAMES, new_figure
from amfast.runs.files import read_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SetName = Literal["original", "am", "mixed", "real"]

#: Measures as their names begin -> what an axis says, and which way is better.
_DIVERSITY = {"lpips": "LPIPS (higher: more diverse)", "ms_ssim": "MS-SSIM (lower: more diverse)"}
_REALISM = {
    "top1": "accuracy (higher: more real)",
    "inception_score": "Inception Score (higher: better)",
    "fid": "FID (lower: more real)",
}


class _Measure(BaseModel):
    name: str
    value: FiniteFloat
    low: FiniteFloat | None
    high: FiniteFloat | None


class _Sets(BaseModel):
    sets: dict[_SetName, list[_Measure]]


class _EvaluationFile(BaseModel):
    """What a scatter needs of ``evaluation.json``."""

    format: Literal["amfast-evaluation"]
    format_version: Literal[1]
    classes: list[_Sets]
    overall: _Sets


def draw_scatter(run: Path) -> Figure:
    """A row for every measure of diversity, a column for every one of realism.

    Large marks are all classes together, with their 95 % intervals, small ones single classes, for
    measures that a class has. A dashed line is at the real images' diversity.

    Raises ``RunError`` where the run has no ``evaluation.json``, or one without measures of both.
    """
    evaluation = _read(run / "evaluation.json")
    overall = evaluation.overall.sets
    named = {measure.name for measures in overall.values() for measure in measures}
    rows, columns = (
        [name for base in bases for name in sorted(named) if name.split("[")[0] == base]
        for bases in (_DIVERSITY, _REALISM)
    )
    if not rows or not columns:
        raise RunError(
            f"{run / 'evaluation.json'} has no measure of "
            f"{'realism' if rows else 'diversity'}: run amfast evaluate with --metrics all"
        )
    figure, axes = new_figure(
        len(rows), len(columns), width=0.6 + 2.9 * len(columns), height=0.7 + 2.5 * len(rows)
    )
    for i, diversity in enumerate(rows):
        for j, realism in enumerate(columns):
            _draw(axes[i][j], evaluation, realism, diversity)
            if i == len(rows) - 1:
                axes[i][j].set_xlabel(_label(_REALISM, realism))
            if j == 0:
                axes[i][j].set_ylabel(_label(_DIVERSITY, diversity))
    _add_legend(figure, axes[0][0], [name for name in NAMES if name in overall])
    return figure


def _draw(axes: Axes, evaluation: _EvaluationFile, realism: str, diversity: str) -> None:
    for of_class in evaluation.classes:
        for name, measures in of_class.sets.items():
            x, y = _named(measures, realism), _named(measures, diversity)
            if x is not None and y is not None:
                axes.plot(
                    x.value, y.value, MARKERS[name], color=COLOURS[name], ms=3, mew=0, alpha=0.35
                )
    for name, measures in evaluation.overall.sets.items():
        x, y = _named(measures, realism), _named(measures, diversity)
        if y is not None and name == "real":
            axes.axhline(y.value, color=COLOURS[name], lw=0.8, ls="--")
        if x is not None and y is not None:
            axes.errorbar(
                x.value,
                y.value,
                xerr=_error(x),
                yerr=_error(y),
                fmt=MARKERS[name],
                color=COLOURS[name],
                ms=8,
                mec="white",
                lw=1.2,
            )


def _add_legend(figure: Figure, axes: Axes, names: list[_SetName]) -> None:
    marks = [
        axes.plot([], [], MARKERS[name], color=COLOURS[name], ms=7, label=NAMES[name])[0]
        for name in names
    ]
    figure.legend(handles=marks, loc="outside upper center", ncols=len(marks))


def _error(measure: _Measure) -> list[list[float]] | None:
    if measure.low is None or measure.high is None:
        return None
    value = measure.value
    return [[max(0.0, value - measure.low)], [max(0.0, measure.high - value)]]


def _label(labels: dict[str, str], name: str) -> str:
    base, _, network = name.partition("[")
    return f"{labels[base]}\n{network.rstrip(']')}" if network else labels[base]


def _named(measures: list[_Measure], name: str) -> _Measure | None:
    return next((measure for measure in measures if measure.name == name), None)


def _read(path: Path) -> _EvaluationFile:
    if not path.exists():
        raise RunError(
            f"{path} is missing, and figure 7 is drawn from it: run amfast evaluate on the run"
        )
    try:
        return _EvaluationFile.model_validate_json(read_bytes(path))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "the file"
        raise RunError(
            f"{path} is damaged or of another version of amfast: {where}: {problem['msg']}; run "
            "amfast evaluate again"
        ) from None
