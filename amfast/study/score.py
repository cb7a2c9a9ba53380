"""``amfast study score``: what the answers of all participants come to, unblinded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from amfast.errors import RunError, UsageError
from amfast.evaluation.checks import check_seed
from amfast.metrics.measure import bootstrap_means, percentile_interval
from amfast.study.answers import Answers, read_answers
from amfast.study.key import Key, Kind, read_key

#: Mean and deviation as published (paper, section 3.6): 3 is neutral, lower favours AM.
PAPER: dict[Kind, tuple[float, float]] = {"diversity": (2.24, 0.85), "realism": (2.94, 1.15)}
_NEUTRAL = 3.0
_MOST_FILES = 10_000


@dataclass(frozen=True)
class ClassScore:
    """The mean over the participants of one question."""

    class_id: int
    name: str
    mean: float


@dataclass(frozen=True)
class KindScore:
    """All answers to one kind of question, from 1 (clearly AM) over 3 to 5 (clearly the original).

    ``std`` is over all answers, with divisor n - 1. ``low`` and ``high`` bound a 95 % bootstrap
    interval of the mean over participants, whose answers belong together; None for a single one.
    ``won`` counts the classes whose mean is below 3, ``lost`` those above, ``tied`` those at 3.
    """

    kind: Kind
    mean: float
    std: float | None
    low: float | None
    high: float | None
    answers: int
    won: int
    tied: int
    lost: int
    classes: list[ClassScore]
    paper_mean: float
    paper_std: float


@dataclass(frozen=True)
class StudyScore:
    study: str
    generator: str
    generator_fingerprint: str
    participants: int
    seed: int
    kinds: list[KindScore]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        return {"format": "amfast-study-score", "format_version": 1, **asdict(self)}


def score_study(
    files: Sequence[str | Path], *, key: str | Path | None = None, seed: int = 0
) -> StudyScore:
    """Unblind and score the answers of all participants with the study's ``key.json``.

    ``key`` is by default the ``key.json`` beside the first file, or in the current directory.
    ``seed`` is the bootstrap's. Either every file counts or none does: a file that is damaged,
    incomplete, changed, of another study or of a participant who is there already is refused.

    Raises ``UsageError`` for no files, or too many, and ``RunError`` for files that cannot be used.
    """
    check_seed(seed)
    paths = [Path(file) for file in files]
    if not 1 <= len(paths) <= _MOST_FILES:
        raise UsageError(
            f"{len(paths)} files of answers were given; give from 1 to {_MOST_FILES}, as "
            "participants downloaded them"
        )
    found = read_key(_find_key(paths[0]) if key is None else Path(key))
    participants: list[Answers] = []
    seen: dict[Any, Path] = {}
    refused: list[str] = []
    for path in paths:
        try:
            answers = read_answers(path, found)
            _refuse_again(answers, path, seen)
        except RunError as error:
            refused.append(str(error))
        else:
            participants.append(answers)
    if len(refused) > 1:
        raise RunError(f"{len(refused)} of {len(paths)} files are refused: {'; '.join(refused)}")
    if refused:
        raise RunError(refused[0])
    return _score(found, participants, seed)


def _find_key(first: Path) -> Path:
    for candidate in (first.parent / "key.json", Path("key.json")):
        if candidate.is_file():
            return candidate
    raise RunError(
        f"there is no key.json in {first.parent} or here: give --key, the file that amfast study "
        "wrote beside the page"
    )


def _refuse_again(answers: Answers, path: Path, seen: dict[Any, Path]) -> None:
    """``RunError`` for a participant, or the very answers of one, that another file holds."""
    clicks = tuple((answer.value, answer.at) for answer in answers.answers)
    for mark in (answers.participant, clicks):
        other = seen.setdefault(mark, path)
        if other is not path:
            raise RunError(
                f"{path} and {other} are of the same participant: keep the one downloaded last"
            )


def _score(key: Key, participants: Sequence[Answers], seed: int) -> StudyScore:
    values = torch.tensor(
        [
            [
                answer.value if question.left.set == "am" else 6 - answer.value
                for answer, question in zip(found.answers, key.questions, strict=True)
            ]
            for found in participants
        ],
        dtype=torch.float64,
    )  # [participants, questions]
    notes = []
    if len(participants) == 1:
        notes.append("one participant: an interval over participants takes two or more")
    kinds = []
    for kind in get_args(Kind):
        columns = [i for i, question in enumerate(key.questions) if question.kind == kind]
        if columns:
            kinds.append(_score_kind(key, kind, columns, values[:, columns], seed))
    return StudyScore(
        study=key.study,
        generator=key.generator,
        generator_fingerprint=key.generator_fingerprint,
        participants=len(participants),
        seed=seed,
        kinds=kinds,
        notes=notes,
    )


def _score_kind(
    key: Key, kind: Kind, columns: Sequence[int], values: Tensor, seed: int
) -> KindScore:
    """``values`` are ``[participants, questions of this kind]``."""
    low, high = None, None
    if len(values) > 1:
        low, high = percentile_interval(bootstrap_means(values.mean(dim=1), seed=seed))
    classes = [
        ClassScore(key.questions[column].class_id, key.questions[column].name, mean)
        for column, mean in zip(columns, values.mean(dim=0).tolist(), strict=True)
    ]
    return KindScore(
        kind=kind,
        mean=float(values.mean()),
        std=float(values.std()) if values.numel() > 1 else None,
        low=low,
        high=high,
        answers=values.numel(),
        won=sum(found.mean < _NEUTRAL for found in classes),
        tied=sum(found.mean == _NEUTRAL for found in classes),
        lost=sum(found.mean > _NEUTRAL for found in classes),
        classes=sorted(classes, key=lambda found: found.class_id),
        paper_mean=PAPER[kind][0],
        paper_std=PAPER[kind][1],
    )
