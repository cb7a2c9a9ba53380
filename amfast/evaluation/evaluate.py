"""``amfast evaluate``: what became of a run's classes, beside themselves and real images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from amfast.api import rows_by_name
from amfast.errors import RunError, UsageError
from amfast.evaluation.checks import check_seed, check_whole
from amfast.evaluation.compare import METRICS, Comparison, Metric, Seen, SetName
from amfast.evaluation.networks import Networks
from amfast.evaluation.pictures import RealImages, class_latents, sample_bytes
from amfast.generators import Generator
from amfast.metrics.measure import Measure

#: The smallest gap in a measure of diversity that is worth a share, of the real images' value.
_GAP = 0.02
_OTHERS: tuple[SetName, ...] = ("am", "mixed")


@dataclass(frozen=True)
class Target:
    """An embedding that is evaluated as its class's."""

    class_id: int
    name: str
    trial: int
    embedding: Tensor  # [E]
    why: str


@dataclass(frozen=True)
class ClassEvaluation:
    target: Target
    sets: dict[SetName, list[Measure]]


@dataclass(frozen=True)
class Evaluation:
    """What was measured, of each class and of all together, set by set.

    ``against`` names the real images, or is ``"original"`` where there were none: FID and its like
    then compare with the classes as trained. ``failed`` holds the trials that failed, as (class id,
    class name, trial, step). ``judge`` is the classifier of the top-1 accuracy, None where that was
    not measured.
    """

    generator: str
    generator_fingerprint: str
    judge: str | None
    against: str
    images_per_class: int
    pairs: int
    seed: int
    classes: list[ClassEvaluation]
    overall: dict[SetName, list[Measure]]
    failed: list[tuple[int, str, int, int]]
    notes: list[str]
    #: Whether the real images are the same for every class, and their pairs count once among all.
    alike: bool = False

    @property
    def overall_gaps_closed(self) -> dict[str, dict[SetName, float]]:
        """``gaps_closed`` of all classes together."""
        return gaps_closed(self.overall, alike=self.alike)

    def to_json(self) -> dict[str, Any]:
        """``evaluation.json``."""
        return {
            "format": "amfast-evaluation",
            "format_version": 1,
            "generator": self.generator,
            "generator_fingerprint": self.generator_fingerprint,
            "judge": self.judge,
            "against": self.against,
            "images_per_class": self.images_per_class,
            "pairs": self.pairs,
            "seed": self.seed,
            "classes": [
                {
                    "class_id": found.target.class_id,
                    "name": found.target.name,
                    "trial": found.target.trial,
                    "why": found.target.why,
                    **_sets_json(found.sets, gaps_closed(found.sets)),
                }
                for found in self.classes
            ],
            "overall": _sets_json(self.overall, self.overall_gaps_closed),
            "failed": [
                {"class_id": class_id, "name": name, "trial": trial, "failed_at": step}
                for class_id, name, trial, step in self.failed
            ],
            "notes": self.notes,
        }


def gaps_closed(
    sets: Mapping[SetName, list[Measure]], *, alike: bool = False
) -> dict[str, dict[SetName, float]]:
    """How much of the gap in diversity to the real images is closed, in percent.

    Measure -> set -> ``100 (set - original) / (real - original)``: 100 where a set is as diverse as
    the real images, above it where it is more so, below 0 where it is less diverse than the
    original. For LPIPS and MS-SSIM, over equally many pairs, as sets of the same classes have, but
    for real images that are ``alike`` for all classes; absent where the original is as diverse as
    the real images: where their intervals meet, or less than a fiftieth of the real value lies
    between.
    """
    found: dict[str, dict[SetName, float]] = {}
    by_name = {name: {m.name: m for m in measures} for name, measures in sets.items()}
    for measure, own in by_name.get("original", {}).items():
        real = by_name.get("real", {}).get(measure)
        if own.unit != "pairs" or real is None or not (alike or real.n == own.n):
            continue
        gap = real.value - own.value
        less, more = (real, own) if measure == "ms_ssim" else (own, real)
        apart = less.high is not None and more.low is not None and less.high < more.low
        if apart and abs(gap) >= _GAP * real.value:
            others = {name: by_name.get(name, {}).get(measure) for name in _OTHERS}
            found[measure] = {
                name: 100 * (other.value - own.value) / gap
                for name, other in others.items()
                if other is not None and other.n == own.n
            }
    return {measure: shares for measure, shares in found.items() if shares}


def _look_at_real(
    comparison: Comparison, real: RealImages, class_id: int, count: int
) -> tuple[Seen, int]:
    """What is known of the real images of a class, and how many they are."""

    def look(images: Tensor) -> Seen:
        (seen,) = comparison.look({"real": images}).values()
        return {**seen, "images": torch.tensor(len(images))}

    seen = real.remembered(class_id, count, comparison.key, look)
    return seen, int(seen["images"])


def evaluate(
    generator: Generator,
    targets: list[Target],
    networks: Networks,
    *,
    real: RealImages | None = None,
    metrics: Collection[Metric] = METRICS,
    images_per_class: int = 1000,
    pairs: int = 200,
    seed: int = 0,
    failed: list[tuple[int, str, int, int]] | None = None,
    on_class: Callable[[ClassEvaluation], None] = lambda found: None,
) -> Evaluation:
    """Measure the images of embeddings beside those of the classes as trained, and real ones.

    For every target ``images_per_class`` images of its embedding (``am``), as many of the class's
    own (``original``, where the generator has the class), half of each (``mixed``) and, from
    ``real``, real ones, all as bytes. LPIPS and MS-SSIM over ``pairs`` random pairs of a set, the
    judge's top-1 accuracy, and of all classes together also the Inception Score, FID, and
    precision, recall, density and coverage (``neighbours``, over at most 10,000 images a set). An
    embedding and the class's own see the same latents, which depend on ``seed`` and the class
    alone.

    Raises ``UsageError`` for values out of bounds, no targets, several of one class and embeddings
    of another width, ``RunError`` for an embedding whose images are not finite, and as ``real``
    does.
    """
    check_options(metrics, images_per_class, pairs, seed)
    if not targets:
        raise UsageError("there is no embedding to evaluate: give at least one target")
    width = generator.spec.embedding_dim
    for target in targets:
        if target.embedding.shape != (width,):
            raise UsageError(
                f"the embedding of class {target.class_id} {target.name} is "
                f"{list(target.embedding.shape)}; {generator.spec.name} takes [{width}]"
            )
    counts = Counter(target.class_id for target in targets)
    if several := [target for target in targets if counts[target.class_id] > 1]:
        first = several[0]
        raise UsageError(
            f"there are {counts[first.class_id]} targets of class {first.class_id} {first.name}; "
            "give one embedding for each class, the best as amfast.rank_run has it"
        )
    own = rows_by_name(generator.spec.labels, {t.class_id: t.name for t in targets})
    comparison = Comparison(
        networks,
        metrics,
        classes=len(targets),
        pairs=pairs,
        seed=seed,
        reference="original" if real is None else "real",
        alike="real" if real is not None and real.alike else None,
    )
    classes: list[ClassEvaluation] = []
    notes: list[str] = []
    for target in targets:
        class_id = target.class_id
        latents = class_latents(generator, class_id, images_per_class, seed)
        optimised = sample_bytes(generator, target.embedding, latents)
        if optimised is None:
            raise RunError(
                f"trial {target.trial} of class {class_id} {target.name} gives images that are not "
                "finite: leave it out, or run its class again"
            )
        images: dict[SetName, Tensor] = {"am": optimised}
        if class_id not in own:
            notes.append(
                f"{generator.spec.name} has no class {target.name}: no original to compare"
            )
        else:
            original = sample_bytes(generator, generator.class_embeddings[own[class_id]], latents)
            if original is None:
                notes.append(f"the class {target.name} as trained gives images that are not finite")
            else:
                images["original"] = original
        seen = comparison.look(images)
        further: Seen = {}
        if real is not None:
            seen["real"], count = _look_at_real(comparison, real, class_id, images_per_class)
            if count < images_per_class and not (real.alike and classes):
                of_class = "" if real.alike else f" of {target.name}"
                notes.append(
                    f"{real.name} has {count} images{of_class}, fewer than the "
                    f"{images_per_class} of the other sets"
                )
            if real.alike and classes and comparison.needs_features:
                further = real.further(
                    len(classes),
                    images_per_class,
                    f"{comparison.key}-features",
                    comparison.look_at_features,
                )
        classes.append(ClassEvaluation(target, comparison.add(class_id, seen)))
        comparison.add_more("real", further)
        on_class(classes[-1])
    overall = comparison.overall()
    notes += comparison.notes
    notes += dict.fromkeys(m.note for measures in overall.values() for m in measures if m.note)
    return Evaluation(
        generator=generator.spec.name,
        generator_fingerprint=generator.spec.fingerprint,
        judge=networks.judge.spec.name if "accuracy" in metrics else None,
        against="original" if real is None else real.name,
        images_per_class=images_per_class,
        pairs=pairs,
        seed=seed,
        classes=classes,
        overall=overall,
        failed=failed or [],
        notes=notes,
        alike=real is not None and real.alike,
    )


def check_options(
    metrics: Collection[str], images_per_class: object, pairs: object, seed: object
) -> None:
    """Raise ``UsageError`` for a metric that there is not, or a number out of bounds."""
    if isinstance(metrics, str):
        raise UsageError(f"metrics is {metrics!r}; give a list, of {', '.join(METRICS)}")
    if unknown := [metric for metric in metrics if metric not in METRICS]:
        raise UsageError(
            f"no metric is called {', '.join(map(repr, unknown))}; there are {', '.join(METRICS)}"
        )
    if not metrics:
        raise UsageError(f"no metric was asked for; there are {', '.join(METRICS)}")
    check_whole("images-per-class", images_per_class, 2, 100_000)  # a pair needs two
    check_whole("pairs", pairs, 1, 1_000_000)
    check_seed(seed)


def _sets_json(
    sets: Mapping[SetName, list[Measure]], gaps: dict[str, dict[SetName, float]]
) -> dict[str, Any]:
    return {
        "sets": {name: [m.to_json() for m in measures] for name, measures in sets.items()},
        "gap_closed_percent": gaps,
    }
