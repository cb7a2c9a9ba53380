"""The verdict in plain words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from amfast.metrics.ranking import FLOOR
from amfast.report.data import LEVEL, ClassData, EvaluationData, RunData, Verdict

#: Names in a sentence; the page below has all of them.
_MOST = 8
_SETS = {"original": "as trained", "am": "optimised", "mixed": "mixed", "real": "real"}

_TITLES = {
    "lpips": "LPIPS",
    "ms_ssim": "MS-SSIM",
    "top1": "accuracy",
    "inception_score": "Inception Score",
    "fid": "FID",
}
_MORE, _LESS = ("\N{UPWARDS ARROW}", 1), ("\N{DOWNWARDS ARROW}", -1)
#: Which way is better; LPIPS and MS-SSIM are so for diversity.
_BETTER = {
    **dict.fromkeys(("lpips", "top1", "inception_score"), _MORE),
    **dict.fromkeys(("precision", "recall", "density", "coverage"), _MORE),
    **dict.fromkeys(("ms_ssim", "fid"), _LESS),
}


@dataclass(frozen=True)
class Finding:
    """A sentence: ``text``, then names with a detail each, and how many more there are."""

    tone: str
    text: str
    items: list[tuple[str, str]]
    more: int = 0


def headline(run: RunData) -> str:
    """The run in one line."""
    known = [c for c in run.classes if c.original is not None]
    if all(c.verdict == "failed" for c in run.classes):
        return "Every trial failed"
    if not known:
        new = _with(run, "new")
        return f"{len(new)} of {_count(len(run.classes), 'new class')} recognised"
    gained = _with(run, "gained")
    return f"{len(gained)} of {_count(len(known), 'class')} became more diverse"


def findings(run: RunData) -> list[Finding]:
    """What became of the classes and which trials failed, the good news first."""
    gained = sorted(_with(run, "gained"), key=lambda c: -(relative_gain(c) or 0))
    within = f", within {100 * LEVEL:.0f} %"
    found = [
        _finding("good", "More diverse than as trained, and recognised:", gained, _gain),
        _finding("good", "New to the generator, and recognised:", _with(run, "new"), _prob),
        _finding("plain", f"About as diverse as before{within}:", _with(run, "level"), _gain),
        _finding("bad", "Less diverse than as trained:", _with(run, "lost"), _gain),
        _finding(
            "bad",
            f"Not recognised, the best trial's target probability being below {FLOOR:g}:",
            _with(run, "unrecognised"),
            _prob,
        ),
        _finding("bad", "Without any result, every trial having failed:", _with(run, "failed")),
    ]
    trials = len(run.trials)
    if run.failed:
        items = [(c.name, f"trial {t.index} at step {t.failed_at}") for c, t in run.failed]
        text = f"{len(run.failed)} of {trials} trials failed, having stopped being finite:"
        found.append(Finding("bad", text, items[:_MOST], max(0, len(items) - _MOST)))
    else:
        found.append(Finding("plain", f"None of the {_count(trials, 'trial')} failed.", []))
    return [finding for finding in found if finding.items or finding.text.endswith(".")]


@dataclass(frozen=True)
class MeasureRow:
    """A measure over all classes: a value for each of the sets, empty where it has none."""

    name: str
    better: str
    values: list[str]
    closed: str


@dataclass(frozen=True)
class EvaluationTable:
    """``sets`` are the headings of the columns."""

    sets: list[str]
    rows: list[MeasureRow]


def evaluation_table(evaluation: EvaluationData) -> EvaluationTable:
    """Every measure of ``evaluation.json`` over all classes."""
    sets = [key for key in _SETS if key in evaluation.overall]
    rows = []
    for name in _measures(evaluation):
        of_sets = [evaluation.overall[key].get(name) for key in sets]
        closed = evaluation.gap_closed_percent.get(name, {}).get("am")
        rows.append(
            MeasureRow(
                name=_title(name),
                better=_BETTER.get(name.partition("[")[0], ("", 0))[0],
                values=["" if value is None else f"{value:.3f}" for value in of_sets],
                closed="" if closed is None else f"{closed:.0f} %",
            )
        )
    return EvaluationTable([_SETS[key] for key in sets], rows)


def evaluation_findings(evaluation: EvaluationData) -> list[Finding]:
    """What the evaluation says of all classes together: what became better, and what worse.

    Diversity is better nearer to that of the real images, where it was measured.
    """
    found: dict[bool, list[tuple[str, str]]] = {True: [], False: []}
    before, after, real = (evaluation.overall.get(key, {}) for key in ("original", "am", "real"))
    for name in _measures(evaluation):
        _, sign = _BETTER.get(name.partition("[")[0], ("", 0))
        if not sign or name not in before or name not in after:
            continue
        better = sign * (after[name] - before[name]) > 0
        if name in real and name.startswith(("lpips", "ms_ssim")):
            better = abs(after[name] - real[name]) < abs(before[name] - real[name])
        beside = f" (real {real[name]:.2f})" if name in real else ""
        change = f"{before[name]:.2f} \N{RIGHTWARDS ARROW} {after[name]:.2f}{beside}"
        found[better].append((_title(name.partition("[")[0]), change))
    real_set = evaluation.against != "original"
    start = f"Beside real images ({evaluation.against})" if real_set else "Measured"
    return [
        Finding(tone, f"{start}, {what} over all classes:", items)
        for tone, what, items in (("good", "better", found[True]), ("bad", "worse", found[False]))
        if items
    ]


def _measures(evaluation: EvaluationData) -> list[str]:
    return list(dict.fromkeys(name for of_set in evaluation.overall.values() for name in of_set))


def _title(name: str) -> str:
    """A measure's name as the field writes it, with the network that it is of."""
    measure, bracket, network = name.partition("[")
    return _TITLES.get(measure, measure) + (f" [{network}" if bracket else "")


def relative_gain(of_class: ClassData) -> float | None:
    """The best trial's gain in pairwise distance as a share of the original's."""
    best, original = of_class.best, of_class.original
    if best is None or best.gain is None or original is None or original.distance <= 0:
        return None
    return best.gain / original.distance


def percent(share: float) -> str:
    """With its sign: a typographic minus, which lines up with the plus."""
    return f"{100 * share:+.0f} %".replace("-", "\N{MINUS SIGN}")


def _gain(of_class: ClassData) -> str:
    share = relative_gain(of_class)
    return "" if share is None else percent(share)


def _prob(of_class: ClassData) -> str:
    score = None if of_class.best is None else of_class.best.score
    return "" if score is None else f"{score.target_prob:.2f}"


def _with(run: RunData, verdict: Verdict) -> list[ClassData]:
    return [of_class for of_class in run.classes if of_class.verdict == verdict]


def _finding(
    tone: str,
    text: str,
    classes: list[ClassData],
    detail: Callable[[ClassData], str] = lambda of_class: "",
) -> Finding:
    items = [(of_class.name, detail(of_class)) for of_class in classes]
    return Finding(tone, text, items[:_MOST], max(0, len(items) - _MOST))


def _count(number: int, what: str) -> str:
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{number} {what if number == 1 else plural}"
