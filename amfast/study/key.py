"""``key.json``: which side of which question shows what. Participants do not get it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from amfast.errors import RunError
from amfast.study.files import read_bounded

#: What a question is about: its own panel size, and the paper's figure (section 3.6).
Kind = Literal["diversity", "realism"]
SetName = Literal["original", "am"]

#: Hex digits of a study's id.
ID_LENGTH = 16

_MOST_BYTES = 1 << 20
_Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Side(BaseModel):
    """One panel: whose images, and the SHA-256 of its file."""

    model_config = ConfigDict(strict=True, extra="forbid")

    set: SetName
    sha256: _Hash


class Question(BaseModel):
    """A question by its number on the page; ``trial`` is the one that stands for AM."""

    model_config = ConfigDict(strict=True, extra="forbid")

    question: int
    kind: Kind
    class_id: int
    name: str
    trial: int
    left: Side
    right: Side


class Key(BaseModel):
    """``study`` is the beginning of ``images_sha256``, the hash of all panels as they are shown."""

    model_config = ConfigDict(strict=True, extra="forbid")

    format: Literal["amfast-study-key"] = "amfast-study-key"
    format_version: Literal[1] = 1
    study: str
    images_sha256: _Hash
    seed: int
    generator: str
    generator_fingerprint: str
    created: str
    created_ms: int
    questions: list[Question]


def draw_sides(seed: int, class_id: int, kind: Kind) -> list[SetName]:
    """Whose images are left and right: decided by the seed for each question alone."""
    sides: list[SetName] = ["original", "am"]
    random.Random(f"{seed}/{class_id}/{kind}/sides").shuffle(sides)
    return sides


def hash_images(questions: Iterable[Question]) -> str:
    """The SHA-256 of the panels' own, left and right, in the page's order.

    It depends on nothing that the page does not show, so the study's id cannot give the sides away.
    """
    digest = hashlib.sha256()
    for question in questions:
        digest.update(f"{question.left.sha256} {question.right.sha256}\n".encode())
    return digest.hexdigest()


def read_key(path: Path) -> Key:
    """The key of a study; ``RunError`` for a file that is missing, damaged or something else."""
    try:
        key = Key.model_validate_json(read_bounded(path, _MOST_BYTES, "a study's key"))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "the file"
        raise RunError(f"{path} is not the key of a study: {where}: {problem['msg']}") from None
    numbers = [question.question for question in key.questions]
    if (
        not numbers
        or numbers != list(range(1, len(numbers) + 1))
        or any(
            [q.left.set, q.right.set] != draw_sides(key.seed, q.class_id, q.kind)
            for q in key.questions
        )
        or hash_images(key.questions) != key.images_sha256
        or not key.images_sha256.startswith(key.study)
        or len(key.study) != ID_LENGTH
    ):
        raise RunError(
            f"{path} is damaged: its questions are not those of its seed and study "
            "id; use the key.json that amfast study wrote beside the page"
        )
    return key
