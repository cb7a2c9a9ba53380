"""``amfast study RUN``: the page that participants get, and the key that they do not."""

from __future__ import annotations

import base64
import hashlib
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amfast.api import rows_by_name
from amfast.classes import select_classes
from amfast.errors import RunError, UsageError
from amfast.evaluation.checks import check_seed
from amfast.evaluation.evaluate import Target
from amfast.evaluation.pictures import class_latents, sample_bytes
from amfast.evaluation.subject import Subject, open_subject
from amfast.metrics.ranking import FLOOR
from amfast.pages import Page
from amfast.runs.files import refuse_existing, refuse_unwritable, write_directory
from amfast.study.key import (
    ID_LENGTH,
    Key,
    Kind,
    Question,
    SetName,
    Side,
    draw_sides,
    hash_images,
)
from amfast.study.panels import encode_pair

#: Images to a side of a panel (paper, section 3.6).
GRID: dict[Kind, int] = {"diversity": 8, "realism": 3}
#: Without a choice so many classes are asked about, as in the paper.
DEFAULT_CLASSES = 50
#: Two questions each: more than anybody would answer, and some 50 MB.
MOST_CLASSES = 100

_PAGE = Page("amfast.study", "study.html", style="study.css", script="study.js")


@dataclass(frozen=True)
class Study:
    """A study on disk: ``page`` for the participants, ``key_path`` for whoever scores it."""

    page: Path
    key_path: Path
    key: Key = field(repr=False)
    page_bytes: int
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        return {
            "study": self.key.study,
            "page": str(self.page),
            "key": str(self.key_path),
            "page_bytes": self.page_bytes,
            "seed": self.key.seed,
            "questions": len(self.key.questions),
            "classes": sorted({question.class_id for question in self.key.questions}),
            "notes": self.notes,
        }


def make_study(
    run: str | Path,
    *,
    out: str | Path | None = None,
    classes: str = "all",
    seed: int | None = None,
    weights: str | Path | None = None,
    min_target_prob: float = FLOOR,
    device: str = "auto",
    on_class: Callable[[str], None] = lambda name: None,
) -> Study:
    """Write the survey of the paper's section 3.6 on a run, as ``index.html`` and ``key.json``.

    Of every class two questions, each a panel of the class as trained beside one of AM's best trial
    (as ``rank_run`` has it) on the same latents: 8x8 images for diversity, 3x3 for realism. ``out``
    is a new directory, by default ``study`` in the run's. ``seed`` decides the latents, the sides,
    the order of the questions and, where ``classes`` is ``"all"`` and there are more than 50, which
    50 are asked about; without one it is drawn, so that nobody can work the sides out. The other
    arguments are those of ``open_subject``.

    Raises ``UsageError`` for a seed or classes that are out of bounds, more than 100 classes and a
    file in place of a directory, ``RunError`` where ``out`` exists or cannot be written, where no
    class has an original to compare with and for images that are not finite, and as
    ``open_subject`` does.
    """
    seed = secrets.randbelow(2**32) if seed is None else seed
    check_seed(seed)
    source = Path(run)
    if source.is_file():
        raise UsageError(
            f"{source} is a file: give a run directory, or import it with amfast import"
        )
    directory = source / "study" if out is None else Path(out)
    refuse_existing(directory)
    subject = open_subject(source, weights=weights, device=device, min_target_prob=min_target_prob)
    refuse_unwritable(directory)
    targets, notes = _choose(subject, classes, random.Random(f"{seed}/classes"))
    asked: list[tuple[Question, dict[str, Any]]] = []
    for target in targets:
        asked += _questions(subject, target, seed)
        on_class(target.name)
    random.Random(f"{seed}/order").shuffle(asked)
    questions = [q.model_copy(update={"question": i}) for i, (q, _) in enumerate(asked, start=1)]
    images = hash_images(questions)
    now = datetime.now(timezone.utc)
    spec = subject.generator.spec
    key = Key(
        study=images[:ID_LENGTH],
        images_sha256=images,
        seed=seed,
        generator=spec.name,
        generator_fingerprint=spec.fingerprint,
        created=now.isoformat(timespec="seconds"),
        created_ms=int(now.timestamp() * 1000),
        questions=questions,
    )
    data = {"study": key.study, "questions": [shown for _, shown in asked]}
    page = _PAGE.render(data=data, questions=len(questions)).encode()
    files = {"index.html": page, "key.json": (key.model_dump_json(indent=2) + "\n").encode()}
    write_directory(directory, files)
    return Study(directory / "index.html", directory / "key.json", key, len(page), notes)


def _choose(
    subject: Subject, classes: str, stream: random.Random
) -> tuple[list[Target], list[str]]:
    """The classes to ask about, with sentences on those that are left out."""
    found = {target.class_id: target for target in subject.targets}
    names = {class_id: target.name for class_id, target in found.items()}
    own = rows_by_name(subject.generator.spec.labels, names)
    notes = []
    if classes == "all":
        if lacking := [target.name for i, target in found.items() if i not in own]:
            notes.append(
                f"left out {', '.join(lacking)}: {subject.generator.spec.name} has no such class "
                "as trained to compare with"
            )
        chosen = [target for i, target in found.items() if i in own]
        if len(chosen) > DEFAULT_CLASSES:
            notes.append(
                f"of {len(chosen)} classes, {DEFAULT_CLASSES} were drawn by the seed, as many as "
                "the paper asked about: choose others with --classes"
            )
            chosen = sorted(stream.sample(chosen, DEFAULT_CLASSES), key=lambda t: t.class_id)
    else:
        labels = [names.get(i, str(i)) for i in range(max(found) + 1)]
        wanted = select_classes(classes, labels)
        if none := [labels[i] for i in wanted if i not in found]:
            raise UsageError(f"the run holds no embedding of class {', '.join(none[:5])}")
        if lacking := [names[i] for i in wanted if i not in own]:
            raise UsageError(
                f"{subject.generator.spec.name} has no class {', '.join(lacking[:5])} as trained, "
                "so there is nothing to compare with: leave it out"
            )
        chosen = [found[i] for i in wanted]
    if not chosen:
        raise RunError("there is nothing to ask about: the generator has none of the run's classes")
    if len(chosen) > MOST_CLASSES:
        raise UsageError(
            f"{len(chosen)} classes are {2 * len(chosen)} questions, more than anybody answers; "
            f"choose at most {MOST_CLASSES}, or leave --classes out for {DEFAULT_CLASSES}"
        )
    return chosen, notes


def _questions(
    subject: Subject, target: Target, seed: int
) -> list[tuple[Question, dict[str, Any]]]:
    """A class's two questions, and what the page is to show of each.

    They come from streams of the class's own, so a class is asked about alike whichever others are.
    """
    generator = subject.generator
    own = rows_by_name(generator.spec.labels, {target.class_id: target.name})[target.class_id]
    count = sum(side**2 for side in GRID.values())
    latents = class_latents(generator, target.class_id, count, seed)
    sets: dict[SetName, Tensor] = {}
    vectors: dict[SetName, Tensor] = {
        "original": generator.class_embeddings[own],
        "am": target.embedding,
    }
    for name, vector in vectors.items():
        images = sample_bytes(generator, vector, latents)
        if images is None:
            raise RunError(
                f"the {name} embedding of class {target.class_id} {target.name} gives images that "
                "are not finite: leave the class out with --classes"
            )
        sets[name] = images
    asked, first = [], 0
    for kind, side in GRID.items():
        names = draw_sides(seed, target.class_id, kind)
        rows = torch.arange(first, first + side**2)
        first += side**2
        panels = encode_pair(*(sets[name][rows] for name in names))
        left, right = (
            Side(set=name, sha256=hashlib.sha256(panel).hexdigest())
            for name, panel in zip(names, panels, strict=True)
        )
        question = Question(
            question=0,
            kind=kind,
            class_id=target.class_id,
            name=target.name,
            trial=target.trial,
            left=left,
            right=right,
        )
        shown = {"kind": kind, "name": target.name, "panels": [*map(_data_uri, panels)]}
        asked.append((question, shown))
    return asked


def _data_uri(image: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(image).decode()}"
