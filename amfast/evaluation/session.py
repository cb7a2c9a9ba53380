"""One evaluation from its options to its file. The command line only calls this."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch

from amfast.device import resolve_device
from amfast.errors import UsageError
from amfast.evaluation.compare import METRICS, Metric, load_needed
from amfast.evaluation.evaluate import ClassEvaluation, Evaluation, check_options, evaluate
from amfast.evaluation.networks import Features, load_networks
from amfast.evaluation.pictures import FolderImages, RealImages, Renderer
from amfast.evaluation.subject import open_subject
from amfast.metrics.ranking import FLOOR
from amfast.runs.files import write_json
from amfast.runs.lock import locked

#: What an evaluation is called in its run directory.
EVALUATION = "evaluation.json"
#: What ``against`` may say besides a folder.
ORIGINAL, RENDERER = "original", "renderer"


@dataclass
class Listener:
    """What a caller may want to hear of meanwhile; every part is optional."""

    on_start: Callable[[int], None] = lambda classes: None
    on_class: Callable[[ClassEvaluation], None] = lambda found: None
    on_note: Callable[[str], None] = lambda note: None


@dataclass(frozen=True)
class Evaluated:
    """``path`` is the file that was written, None for a bare embeddings file."""

    evaluation: Evaluation = field(repr=False)
    path: Path | None


def evaluate_path(
    path: str | Path,
    *,
    against: str | Path | None = None,
    metrics: Collection[Metric] = METRICS,
    images_per_class: int = 1000,
    pairs: int = 200,
    seed: int = 0,
    generator: str | None = None,
    weights: str | Path | None = None,
    judge: str | None = None,
    judge_weights: str | Path | None = None,
    features: Features = "auto",
    min_target_prob: float = FLOOR,
    device: str = "auto",
    listener: Listener | None = None,
) -> Evaluated:
    """Evaluate a run directory, imported embeddings or an embeddings file.

    ``against`` is a folder of real images (ImageNet's layout, Places365's, or flat),
    ``"original"`` for the classes as trained alone, or ``"renderer"`` for the pictures that the
    embedded generator learned from: its default, while any other's is ``"original"``. The result
    goes into the run directory as ``evaluation.json``, which is locked meanwhile. The other
    arguments are those of ``open_subject``, ``load_networks`` and ``evaluate``, and so are the
    errors; ``RunError`` too for a directory that is in use or takes no file.
    """
    listener = listener or Listener()
    check_options(metrics, images_per_class, pairs, seed)
    if against == "":  # as an unset variable leaves it: neither a folder nor left out
        raise UsageError(f"against is empty; give a folder of images, {ORIGINAL} or {RENDERER}")
    subject = open_subject(
        path,
        generator=generator,
        weights=weights,
        device=device,
        min_target_prob=min_target_prob,
    )
    classes = {target.class_id: target.name for target in subject.targets}
    target_device = resolve_device(device)
    networks = load_networks(
        generator=subject.generator_name,
        class_names=classes,
        judge=judge,
        judge_weights=judge_weights,
        features=features,
        device=target_device,
    )
    load_needed(networks, metrics)  # what is missing is better known before the work
    real = open_real(
        against,
        generator=subject.generator_name,
        labels=lambda: networks.labels,
        classes=classes,
        size=subject.generator.spec.resolution,
        seed=seed,
        device=target_device,
        on_note=listener.on_note,
    )
    # Held from the start: that the directory takes no file is better known before the work.
    directory = subject.directory
    with nullcontext() if directory is None else locked(directory / "lock"):
        listener.on_start(len(subject.targets))
        evaluation = evaluate(
            subject.generator,
            subject.targets,
            networks,
            real=real,
            metrics=metrics,
            images_per_class=images_per_class,
            pairs=pairs,
            seed=seed,
            failed=subject.failed,
            on_class=listener.on_class,
        )
        if isinstance(real, FolderImages):
            evaluation.notes.extend(f"skipped {s.path}: {s.reason}" for s in real.skipped)
        if directory is None:
            return Evaluated(evaluation, None)
        written = directory / EVALUATION
        write_json(written, evaluation.to_json())
        return Evaluated(evaluation, written)


def open_real(
    against: str | Path | None,
    *,
    generator: str,
    labels: Callable[[], Sequence[str]],
    classes: Mapping[int, str],
    size: int,
    seed: int,
    device: torch.device,
    on_note: Callable[[str], None] = lambda note: None,
) -> RealImages | None:
    """The real images of ``classes`` (id -> name) that ``against`` names, None for ``"original"``.

    A folder's are found by the names or ids that ``labels`` gives, which is asked for a folder
    alone. Errors are those of ``Renderer`` and ``FolderImages``.
    """
    if against is None:
        against = RENDERER if generator == "embedded" else ORIGINAL
    wanted = str(against)
    if wanted == ORIGINAL:
        return None
    if wanted == RENDERER:
        return Renderer(classes, size=size, seed=seed)
    return FolderImages(
        wanted, labels(), classes, size=size, seed=seed, device=device, on_note=on_note
    )
