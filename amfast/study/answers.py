"""The answers of one participant, as the page hands them out."""

from __future__ import annotations

import time
import zlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from amfast.errors import RunError
from amfast.study.files import read_bounded
from amfast.study.key import Key

_MOST_BYTES = 1 << 20
#: By how much a participant's clock may be wrong.
_DAY_MS = 24 * 60 * 60 * 1000

_Time = Annotated[int, Field(ge=0, lt=1 << 53)]  # milliseconds since 1970; exact in the browser


class Answer(BaseModel):
    """``value`` is as it was clicked: 1 is clearly the left panel, 5 clearly the right one."""

    model_config = ConfigDict(strict=True, extra="forbid")

    question: int
    value: Annotated[int, Field(ge=1, le=5)]
    at: _Time


class Answers(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    format: Literal["amfast-study-answers"]
    format_version: Literal[1]
    study: str
    participant: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    started: _Time
    finished: _Time
    answers: Annotated[list[Answer], Field(max_length=1000)]
    checksum: str

    def checksum_of(self) -> str:
        """CRC-32 of all that was said, a line each; ``study.js`` computes the same."""
        lines = [self.study, self.participant, f"{self.started} {self.finished}"]
        lines += [f"{answer.question} {answer.value} {answer.at}" for answer in self.answers]
        return f"{zlib.crc32(chr(10).join(lines).encode()):08x}"


def read_answers(path: Path, key: Key) -> Answers:
    """The answers in a file, complete and of this study.

    Raises ``RunError``, with what is wrong, for a file that is not what the study's page wrote.
    """
    try:
        found = Answers.model_validate_json(
            read_bounded(path, _MOST_BYTES, "answers from the study's page")
        )
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "the file"
        raise RunError(f"{path} is not a file of answers: {where}: {problem['msg']}") from None
    if found.study != key.study:
        raise RunError(
            f"{path} is of another study, {found.study[:40]!r}, not {key.study}: score it with the "
            "key of that one"
        )
    if found.checksum != found.checksum_of():
        raise RunError(
            f"{path} was changed after the page wrote it: its checksum does not fit its answers; "
            "ask the participant for the file as it was downloaded"
        )
    expected = [question.question for question in key.questions]
    given = [answer.question for answer in found.answers]
    if given != expected:
        raise RunError(
            f"{path} answers {len(set(given) & set(expected))} of the study's {len(expected)} "
            "questions, or not each once in order: only complete answers count"
        )
    times = [answer.at for answer in found.answers]
    now = int(time.time() * 1000)
    if not (
        key.created_ms - _DAY_MS <= found.started <= min(times)
        and max(times) <= found.finished <= now + _DAY_MS
    ):
        raise RunError(
            f"{path} has times that cannot be: answers outside the time from its start to its end, "
            "before the study was made, or in the future"
        )
    return found
