"""One evaluation from its options to its file. The command line only calls this."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from amfast.device import resolve_device
from amfast.errors import UsageError
from amfast.evaluation.compare import METRICS, Metric
from amfast.evaluation.evaluate import ClassEvaluation, Evaluation, check_options, evaluate
from amfast.evaluation.networks import Features, load_networks
from amfast.evaluation.pictures import FolderImages, RealImages, Renderer
from amfast.evaluation.subject import open_subject
from amfast.metrics.ranking import FLOOR
from amfast.runs.files import write_json

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
    goes into the run directory as ``evaluation.json``. The other arguments are those of
    ``open_subject``, ``load_networks`` and ``evaluate``, and so are the errors.
    """
    listener = listener or Listener()
    check_options(metrics, images_per_class, pairs, seed)
    subject = open_subject(
        path,
        generator=generator,
        weights=weights,
        device=device,
        min_target_prob=min_target_prob,
    )
    networks = load_networks(
        generator=subject.generator_name,
        class_names={target.class_id: target.name for target in subject.targets},
        judge=judge,
        judge_weights=judge_weights,
        features=features,
        device=resolve_device(device),
    )
    spec, labels = subject.generator.spec, networks.judge.spec.labels
    embedded = subject.generator_name == "embedded"
    wanted = str(against or (RENDERER if embedded else ORIGINAL))
    real: RealImages | None = None
    if wanted == RENDERER:
        if not embedded:
            raise UsageError(
                f"the renderer draws what the embedded generator learned from, not {spec.name}'s "
                "classes: give a folder of real images, or original"
            )
        real = Renderer(seed)
    elif wanted != ORIGINAL:
        real = FolderImages(wanted, labels, spec.resolution, seed, listener.on_note)
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
    if subject.directory is None:
        return Evaluated(evaluation, None)
    written = subject.directory / EVALUATION
    write_json(written, evaluation.to_json())
    return Evaluated(evaluation, written)
