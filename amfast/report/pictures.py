"""The pictures of a report: every embedding on the same latents, as strips of images."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image, features
from torch import Tensor

from amfast.api import rows_by_name
from amfast.generators.protocol import Generator, device_of
from amfast.images.picture import to_bytes
from amfast.interpolation import between
from amfast.metrics.embedding import evaluation_latents
from amfast.optimize.parallel import side_by_side
from amfast.report.data import ClassData, RunData, TrialData
from amfast.report.plan import (
    EMBEDDING_FRAMES,
    EMBEDDING_IMAGES,
    KEYS,
    STEPS,
    THUMBNAILS,
    PicturePlan,
)

_QUALITIES = (90, 65, 35)
#: The last of them takes about so much less than the first.
_SPAN = 4
#: Of WebP: a tenth of the time of its default, for a twentieth more bytes.
_METHOD = 1
_COLUMNS = 4  # of the thumbnails


@dataclass(frozen=True)
class Strips:
    """Pictures of one embedding as ``data:`` addresses; None for those it does not have.

    ``thumbnails`` is a grid of four columns. ``latents`` is a row of images between latents, and
    ``embeddings`` a row of frames of several images each, from where the embedding came from to it.
    """

    thumbnails: str | None = None
    latents: str | None = None
    embeddings: str | None = None


@dataclass(frozen=True)
class Pictures:
    """By the numbers of ``RunData``'s classes and trials; ``not_finite`` are trials without any."""

    originals: dict[int, Strips]
    trials: dict[int, Strips]
    not_finite: list[int]


@dataclass(frozen=True)
class _Subject:
    """What to draw: an embedding, and the one that its strip begins at, both ``[E]``."""

    embedding: Tensor
    latents: bool = False
    begins_at: Tensor | None = None


def draw_pictures(generator: Generator, run: RunData, plan: PicturePlan) -> Pictures:
    """Sample and encode what ``plan`` says of a run of this generator."""
    originals, trials = _subjects(generator, run, plan)
    device = device_of(generator)
    latents = evaluation_latents(THUMBNAILS, generator.spec.latent_dim, run.config.seed, device)
    path = latent_path(latents[:KEYS])

    def draw(subject: _Subject) -> Strips | None:
        return _draw(generator, subject, latents[: plan.count], path, plan)

    subjects = [*originals.values(), *trials.values()]
    with side_by_side(device, len(subjects)) as each:
        drawn: list[Strips | None] = each(draw, subjects)
    of_originals = zip(originals, drawn, strict=False)
    of_trials = list(zip(trials, drawn[len(originals) :], strict=True))
    return Pictures(
        originals={number: found for number, found in of_originals if found is not None},
        trials={number: found for number, found in of_trials if found is not None},
        not_finite=[number for number, found in of_trials if found is None],
    )


def latent_path(keys: Tensor) -> Tensor:
    """From each latent of ``keys`` ``[K, D]`` to the next: ``[(K - 1) * STEPS + 1, D]``.

    Along a quarter of an ellipse rather than a line, so that what lies between two normal latents
    is as likely as they are.
    """
    angles = torch.arange(STEPS, dtype=keys.dtype) / STEPS * (math.pi / 2)
    away, towards = angles.cos()[:, None].to(keys), angles.sin()[:, None].to(keys)
    parts = [away * keys[i] + towards * keys[i + 1] for i in range(len(keys) - 1)]
    return torch.cat([*parts, keys[-1:]])


def _subjects(
    generator: Generator, run: RunData, plan: PicturePlan
) -> tuple[dict[int, _Subject], dict[int, _Subject]]:
    """Those of the originals, by class number, and of the trials, by trial number."""
    originals: dict[int, _Subject] = {}
    trials: dict[int, _Subject] = {}
    if plan.thumbnails == "none":
        return originals, trials
    table = generator.class_embeddings
    rows = rows_by_name(generator.spec.labels, run.facts.class_names)
    mean = table.mean(dim=0)
    for of_class in run.classes:
        own = table[rows[of_class.class_id]] if of_class.class_id in rows else None
        if own is not None:
            originals[of_class.number] = _Subject(own, latents=plan.strips != "none")
        for trial in of_class.trials:
            if trial.score is None or trial.embedding is None:
                continue
            if not _among(plan.thumbnails, of_class, trial):
                continue
            with_strips = _among(plan.strips, of_class, trial)
            begins_at = (mean if own is None else own) if with_strips else None
            trials[trial.number] = _Subject(trial.embedding.to(table), with_strips, begins_at)
    return originals, trials


def _among(which: str, of_class: ClassData, trial: TrialData) -> bool:
    best = of_class.best is not None and trial.number == of_class.best.number
    return which == "all" or (which == "best" and best)


def _draw(
    generator: Generator, subject: _Subject, latents: Tensor, path: Tensor, plan: PicturePlan
) -> Strips | None:
    """The strips of one embedding; None where one of its images is not finite."""
    shown, order = latents, None
    if subject.latents:
        keys = torch.arange(len(path)) % STEPS == 0
        shown = torch.cat([latents, path[~keys.to(path.device)]])
        order = torch.where(
            keys,
            torch.arange(len(path)) // STEPS,
            len(latents) + (~keys).cumsum(0) - 1,
        )
    images = _sample(generator, subject.embedding[None], shown, plan.side)
    if images is None:
        return None
    rows = images[: len(latents)].split(_COLUMNS)
    grid = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
    strips = {"thumbnails": encode(grid, len(latents) * plan.bytes_per_image)}
    if order is not None:
        strips["latents"] = _encode_row(images[order], plan)
    if subject.begins_at is not None:
        mixed = between(subject.begins_at, subject.embedding, EMBEDDING_FRAMES)[:-1]
        before = _sample(generator, mixed, latents[:EMBEDDING_IMAGES], plan.side)
        if before is None:
            return None
        strips["embeddings"] = _encode_row(torch.cat([before, images[:EMBEDDING_IMAGES]]), plan)
    return Strips(**strips)


@torch.no_grad()
def _sample(generator: Generator, embeddings: Tensor, latents: Tensor, side: int) -> Tensor | None:
    """Images ``[T * Z, 3, side, side]``, uint8, on the CPU; None where one is not finite."""
    images = generator(embeddings, latents.expand(len(embeddings), -1, -1)).float()
    if not images.isfinite().all():
        return None
    return to_bytes(F.adaptive_avg_pool2d(images, side)).cpu()


def _encode_row(images: Tensor, plan: PicturePlan) -> str:
    return encode(torch.cat(list(images), dim=2), len(images) * plan.bytes_per_image)


def encode(pixels: Tensor, most_bytes: int) -> str:
    """An image ``[3, H, W]``, uint8, as a ``data:`` address of a file of at most ``most_bytes``.

    Whatever it shows: at a lower quality, then at half the size, until it fits.
    """
    picture = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    form = "WEBP" if features.check("webp") else "JPEG"
    while True:
        for quality in _QUALITIES:
            buffer = io.BytesIO()
            picture.save(buffer, format=form, quality=quality, method=_METHOD)
            if buffer.tell() <= most_bytes:
                text = base64.b64encode(buffer.getvalue()).decode()
                return f"data:image/{form.lower()};base64,{text}"
            if buffer.tell() > _SPAN * most_bytes:
                break
        picture = picture.resize((max(1, picture.width // 2), max(1, picture.height // 2)))
