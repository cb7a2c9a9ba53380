"""A small finished run, and answers to a study on it as the page would write them."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amfast.study import Study, make_study
from tests.browser import chromium, visit
from tests.tiny_run import finished, run

__all__ = ["chromium", "finished", "run", "visit"]

SEED = 7

#: ``write(name, values=..., **changes)``: a file of answers, its checksum fitting but for changes.
WriteAnswers = Callable[..., Path]


@pytest.fixture(scope="session")
def study(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_study(finished, out=tmp_path_factory.mktemp("out") / "s", seed=SEED, device="cpu")


@pytest.fixture
def write_answers(study: Study, tmp_path: Path) -> WriteAnswers:
    def write(
        name: str, values: list[int] | None = None, participant: int = 1, **changes: Any
    ) -> Path:
        count = len(study.key.questions)
        start = int(time.time() * 1000) + 1000 * participant
        given = {
            "format": "amfast-study-answers",
            "format_version": 1,
            "study": study.key.study,
            "participant": f"{participant:032x}",
            "started": start,
            "finished": start + 10_000,
            "answers": [
                {"question": i, "value": value, "at": start + 10 * i}
                for i, value in enumerate(values or [3] * count, start=1)
            ],
        }
        given.update(changes)
        return seal(tmp_path / name, given)

    return write


def seal(path: Path, given: dict[str, Any]) -> Path:
    """Write answers with the checksum that docs/formats.md gives, worked out here anew."""
    lines = [f"{given['study']}", given["participant"], f"{given['started']} {given['finished']}"]
    lines += [f"{a['question']} {a['value']} {a['at']}" for a in given["answers"]]
    checksum = f"{zlib.crc32(chr(10).join(lines).encode()):08x}"
    path.write_text(json.dumps({"checksum": checksum, **given}))
    return path
