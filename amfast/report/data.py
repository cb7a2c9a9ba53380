"""A run directory as plain data: what the report says, before any of it is drawn."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from amfast.config import RunConfig
from amfast.errors import RunError
from amfast.evaluation.rank import rank_run
from amfast.evaluation.session import EVALUATION
from amfast.metrics.embedding import EmbeddingScore
from amfast.metrics.ranking import FLOOR
from amfast.optimize.trials import plan_trials
from amfast.runs.facts import RunFacts
from amfast.runs.files import read_json
from amfast.runs.imported import ImportedRun, open_any_run
from amfast.text import printable

#: What became of a class: more diverse than as trained, about as diverse, or less; the classifier
#: does not recognise it; the generator lacked it and it is recognised now; every trial failed.
Verdict = Literal["gained", "level", "lost", "unrecognised", "new", "failed"]
#: A pairwise distance within this share of the original's is about as diverse.
LEVEL = 0.05


@dataclass(frozen=True)
class TrialData:
    """One trial. ``number`` counts those of the run: it stands for the trial in the page.

    ``embedding`` [E] and ``history`` [steps, 2 or more], fp32, are None where the trial's file is
    missing or damaged; ``score`` is where the trial failed. ``gain`` is the pairwise distance less
    the original's; None where there is nothing to compare.
    """

    number: int
    index: int
    score: EmbeddingScore | None
    gain: float | None
    failed_at: int | None
    stopped_at: int | None
    embedding: Tensor | None = field(repr=False)
    history: Tensor | None = field(repr=False)


@dataclass(frozen=True)
class ClassData:
    """A target class; ``original`` is the score of the generator's own embedding, if it has one.

    ``name`` is fit to be shown: control characters in it are spelt out.
    """

    number: int
    class_id: int
    name: str
    verdict: Verdict
    why: str
    original: EmbeddingScore | None
    best: TrialData | None
    trials: list[TrialData]


@dataclass(frozen=True)
class EvaluationData:
    """What ``evaluation.json`` says: measure -> value, by set, of each class and of all."""

    against: str
    images_per_class: int
    classes: list[tuple[str, dict[str, dict[str, float]]]]
    overall: dict[str, dict[str, float]]
    gap_closed_percent: dict[str, dict[str, float]]
    notes: list[str]


@dataclass(frozen=True)
class RunData:
    """A finished run, with ``notes`` on what happened on the way."""

    path: Path
    config: RunConfig
    facts: RunFacts
    created: str
    notes: list[str]
    seconds_per_trial: float | None
    classes: list[ClassData]
    evaluation: EvaluationData | None

    @property
    def trials(self) -> list[TrialData]:
        return [trial for of_class in self.classes for trial in of_class.trials]

    @property
    def failed(self) -> list[tuple[ClassData, TrialData]]:
        return [(c, t) for c in self.classes for t in c.trials if t.failed_at is not None]


def read_run(path: Path) -> RunData:
    """Read a finished run.

    Raises ``RunError`` for a directory that is no run, holds imported embeddings, has not come to
    its end, or is damaged. A trial's file that is missing or damaged costs its pictures alone, and
    is noted.
    """
    directory = open_any_run(path)
    if isinstance(directory, ImportedRun):
        raise RunError(
            f"{path} holds imported embeddings: nothing was optimised in it, so there is nothing "
            "to report; amfast sample shows them and amfast evaluate measures them"
        )
    ranked = rank_run(path)
    config = directory.config
    results, damaged = directory.finished(plan_trials(config.classes, config.trials, config.seed))
    by_key = {(t.class_id, t.index): result for t, result in results.items()}
    about = read_json(path / "run.json")
    notes = [printable(str(note)) for note in about.get("notes", [])]
    if damaged:
        first, more = damaged[0].name, f" and {len(damaged) - 1} more" if damaged[1:] else ""
        notes.append(
            f"{first}{more} cannot be used, being damaged or of another version of amfast: the "
            "page lacks pictures and curves of those trials"
        )
    classes: list[ClassData] = []
    number = 0
    for found in ranked:
        trials: dict[int, TrialData] = {}
        for index in sorted({*found.order, *found.failed}):
            result = by_key.get((found.class_id, index))
            score = found.scores.get(index)
            gain = None
            if score is not None and found.original is not None:
                gain = score.distance - found.original.distance
            trials[index] = TrialData(
                number=number,
                index=index,
                score=score,
                gain=gain,
                failed_at=found.failed.get(index),
                stopped_at=None if result is None else result.stopped_at,
                embedding=None if result is None else result.embedding,
                history=None if result is None else result.history,
            )
            number += 1
        best = None if found.best is None else trials[found.best]
        classes.append(
            ClassData(
                number=len(classes),
                class_id=found.class_id,
                name=printable(found.name),
                verdict=_verdict(found.original, best),
                why=printable(found.why),
                original=found.original,
                best=best,
                trials=list(trials.values()),
            )
        )
    return RunData(
        path=path,
        config=config,
        facts=directory.facts,
        created=printable(str(about.get("created", ""))),
        notes=notes,
        seconds_per_trial=directory.seconds_per_trial(),
        classes=classes,
        evaluation=_read_evaluation(path / EVALUATION),
    )


def _verdict(original: EmbeddingScore | None, best: TrialData | None) -> Verdict:
    if best is None or best.score is None:
        return "failed"
    if best.score.target_prob < FLOOR:
        return "unrecognised"
    if original is None:
        return "new"
    if best.score.distance > (1 + LEVEL) * original.distance:
        return "gained"
    return "lost" if best.score.distance < (1 - LEVEL) * original.distance else "level"


def _read_evaluation(path: Path) -> EvaluationData | None:
    if not path.exists():
        return None
    try:
        found = read_json(path)
        return EvaluationData(
            against=printable(str(found["against"])),
            images_per_class=int(found["images_per_class"]),
            classes=[(printable(str(c["name"])), _values(c["sets"])) for c in found["classes"]],
            overall=_values(found["overall"]["sets"]),
            gap_closed_percent=found["overall"]["gap_closed_percent"],
            notes=[printable(str(note)) for note in found["notes"]],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{path} is damaged: {error!r}; evaluate the run again, or remove the file"
        ) from None


def _values(sets: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    return {
        name: {str(m["name"]): float(m["value"]) for m in measures}
        for name, measures in sets.items()
    }
