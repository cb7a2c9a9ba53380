"""What there is to evaluate: a run's best trials, imported embeddings, or an embeddings file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amfast.errors import RunError, UsageError
from amfast.evaluation.evaluate import Target
from amfast.evaluation.rank import rank_run
from amfast.generators import Generator, load_generator
from amfast.metrics.ranking import FLOOR
from amfast.runs.directory import RunDirectory
from amfast.runs.embeddings_file import EmbeddingsFile, read_embeddings
from amfast.runs.imported import open_any_run


@dataclass(frozen=True)
class Subject:
    """``directory`` is where the result belongs, None for a bare file."""

    generator: Generator
    generator_name: str
    targets: list[Target]
    failed: list[tuple[int, str, int, int]]
    directory: Path | None


def open_subject(
    path: str | Path,
    *,
    generator: str | None = None,
    weights: str | Path | None = None,
    device: str = "auto",
    min_target_prob: float = FLOOR,
) -> Subject:
    """Load what ``path`` holds and the generator it was made with.

    Of a run the best trial of each class as ``rank_run`` has it. Of imported embeddings or a file,
    which say nothing of trials, each class's only one. A run names its generator and its weights;
    a file needs ``generator`` unless it is of the embedded one. ``weights`` in place of those that
    a run names must have the same fingerprint.

    Raises ``UsageError``, ``RunError`` and ``WeightsError`` as ``load_generator``, ``rank_run`` and
    ``read_embeddings`` do, and ``RunError`` for several embeddings of a class, for a class without
    a name and for embeddings that are not finite.
    """
    source = Path(path)
    if not source.exists():
        raise RunError(f"{source} is not there: give a run directory or an embeddings file")
    options: dict[str, Any] = {"device": device}
    if not source.is_dir():
        name = generator or "embedded"
        loaded = load_generator(name, weights=weights, **options)
        file = read_embeddings(source, loaded.spec)
        return Subject(loaded, name, _only(source, file), [], None)
    stored = open_any_run(source)
    if generator is not None:
        raise UsageError(f"{source} names its generator itself: leave --generator out")
    if isinstance(stored, RunDirectory):
        config = stored.config
        name, own = config.generator, config.weights
        options |= {
            "truncation": config.truncation,
            "truncation_stats": config.truncation_stats,
            "eps": config.eps,
        }
    else:
        name, own = stored.imported.generator, stored.imported.weights
    loaded = load_generator(name, weights=weights or own, **options)
    file = read_embeddings(stored.embeddings_path, loaded.spec)
    if not isinstance(stored, RunDirectory):
        return Subject(loaded, name, _only(stored.embeddings_path, file), [], source)
    rows = {row: i for i, row in enumerate(file.rows())}
    targets, failed = [], []
    for ranked in rank_run(source, min_target_prob=min_target_prob):
        failed += [(ranked.class_id, ranked.name, *end) for end in ranked.failed.items()]
        if ranked.best is None:
            continue
        row = rows.get((ranked.class_id, ranked.best))
        if row is None:
            raise RunError(f"{stored.embeddings_path} lacks trial {ranked.best} of {ranked.name}")
        found = Target(ranked.class_id, ranked.name, ranked.best, file.embeddings[row], ranked.why)
        targets.append(_finite(stored.embeddings_path, found))
    if not targets:
        raise RunError(f"{source} holds no embedding to evaluate: all of its trials failed")
    return Subject(loaded, name, targets, failed, source)


def _only(path: Path, file: EmbeddingsFile) -> list[Target]:
    class_ids = file.class_ids.tolist()
    if not class_ids:
        raise RunError(f"{path} holds no embedding to evaluate")
    if len(set(class_ids)) < len(class_ids):
        raise RunError(
            f"{path} holds several embeddings of a class, and nothing says which is the best: "
            "evaluate the run, or a file of one for each class (amfast export --trials best)"
        )
    if nameless := [class_id for class_id in class_ids if class_id not in file.class_names]:
        raise RunError(f"{path} is damaged: its class_names lack class {nameless[0]}")
    return [
        _finite(path, Target(class_id, file.class_names[class_id], trial, row, "the only one"))
        for (class_id, trial), row in zip(file.rows(), file.embeddings, strict=True)
    ]


def _finite(path: Path, target: Target) -> Target:
    if not target.embedding.isfinite().all():
        raise RunError(
            f"{path} is damaged: trial {target.trial} of class {target.class_id} {target.name} "
            "holds NaN or infinity"
        )
    return target
