"""``amfast rank``: the trials of every class in order, and why the first is the first."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from amfast.errors import RunError, UsageError
from amfast.evaluation.checks import check_share
from amfast.metrics.embedding import EmbeddingScore
from amfast.metrics.ranking import FLOOR, Diversity, rank
from amfast.runs.directory import RunDirectory
from amfast.runs.imported import open_any_run


@dataclass(frozen=True)
class RankedClass:
    """``order`` holds the trials that did not fail, the best first; ``why`` says so in words."""

    class_id: int
    name: str
    order: tuple[int, ...]
    #: Trial -> the step at which it failed.
    failed: dict[int, int]
    why: str
    original: EmbeddingScore | None
    scores: dict[int, EmbeddingScore]

    @property
    def best(self) -> int | None:
        return self.order[0] if self.order else None

    def to_json(self) -> dict[str, Any]:
        return {"best": self.best, **asdict(self)}


def rank_run(
    run: str | Path, *, min_target_prob: float = FLOOR, by: Diversity = "distance"
) -> list[RankedClass]:
    """Rank the trials of every class of a finished run by the scores in its ``summary.json``.

    The most diverse trial wins among those that the classifier recognises with a probability of
    ``min_target_prob`` or more (``amfast.metrics.ranking``).

    Raises ``UsageError`` for values out of bounds and ``RunError`` for a run that is unfinished or
    damaged, and for imported embeddings.
    """
    check_share("min-target-prob", min_target_prob)
    if by not in get_args(Diversity):
        raise UsageError(f"by is {by!r}; it may be {' or '.join(get_args(Diversity))}")
    directory = open_any_run(Path(run))
    if not isinstance(directory, RunDirectory):
        raise RunError(
            f"{run} holds imported embeddings, which have no trials to put in order: "
            "amfast evaluate measures them"
        )
    summary = directory.summary()
    try:
        return [_ranked(entry, min_target_prob, by) for entry in summary["classes"]]
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{directory.summary_path} is damaged: {error!r}") from None


def _ranked(entry: dict[str, Any], floor: float, by: Diversity) -> RankedClass:
    scores = {int(t["trial"]): _score(t["score"]) for t in entry["trials"] if t["score"]}
    failed = {
        int(t["trial"]): int(t["failed_at"]) for t in entry["trials"] if t["failed_at"] is not None
    }
    original = _score(entry["original"]) if entry["original"] else None
    order = tuple(rank(scores, floor, by))
    return RankedClass(
        class_id=int(entry["class_id"]),
        name=str(entry["name"]),
        order=order,
        failed=failed,
        why=_why(order, scores, original, failed, floor, by),
        original=original,
        scores=scores,
    )


def _score(value: dict[str, Any]) -> EmbeddingScore:
    score = EmbeddingScore(**value)
    if not score.finite:
        raise ValueError(f"a score is not finite: {value}")
    return score


def _why(
    order: tuple[int, ...],
    scores: dict[int, EmbeddingScore],
    original: EmbeddingScore | None,
    failed: dict[int, int],
    floor: float,
    by: Diversity,
) -> str:
    lost = "".join(f"; trial {trial} failed at step {step}" for trial, step in failed.items())
    if not order:
        return f"no trial is left{lost}"
    best = order[0]
    recognised = sum(score.target_prob >= floor for score in scores.values())
    if not recognised:
        return (
            f"trial {best}: none reaches a target probability of {floor:g}, and it comes closest, "
            f"with {scores[best].target_prob:.3f}{lost}"
        )
    own = "" if original is None else f" (as trained {getattr(original, by):.3f})"
    return (
        f"trial {best}: {_NAMES[by]} {getattr(scores[best], by):.3f}{own}, the most diverse of the "
        f"{recognised} of {len(scores)} with a target probability of {floor:g} or more{lost}"
    )


_NAMES = {"distance": "distance", "ms_ssim": "MS-SSIM"}
