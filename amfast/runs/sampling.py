"""Pictures of embeddings that a run left on disk."""

from __future__ import annotations

from pathlib import Path

from amfast.api import rows_by_name
from amfast.classes import select_classes
from amfast.errors import UsageError
from amfast.generators import Generator
from amfast.images.picture import PictureRow, side_by_side
from amfast.metrics.embedding import evaluation_latents, sample_images
from amfast.runs.embeddings_file import read_embeddings


def sample_grid(
    generator: Generator, source: Path | None, *, classes: str, count: int, seed: int
) -> bytes:
    """A PNG with a row per class: its own embedding, then every trial in ``source``.

    ``source`` is an embeddings file, a run directory, or None for the classes as trained. All
    images of a column index share one latent. Raises ``UsageError`` for classes that are in neither
    and ``RunError`` for a file that cannot be used with this generator.
    """
    labels = generator.spec.labels
    latents = evaluation_latents(
        count, generator.spec.latent_dim, seed, generator.class_embeddings.device
    )
    table = generator.class_embeddings
    if source is None:
        rows = [
            PictureRow(labels[i], [sample_images(generator, table[i], latents)])
            for i in select_classes(classes, labels)
        ]
        return side_by_side(["class embedding as trained"], rows)

    file = read_embeddings(
        source / "embeddings.safetensors" if source.is_dir() else source, generator.spec
    )
    by_class: dict[int, dict[int, int]] = {}  # class id -> trial -> row
    for row, (class_id, trial) in enumerate(
        zip(file.class_ids.tolist(), file.trial_ids.tolist(), strict=True)
    ):
        by_class.setdefault(class_id, {})[trial] = row
    last = max(by_class, default=-1)
    known = [
        file.class_names.get(i, labels[i] if i < len(labels) else str(i)) for i in range(last + 1)
    ]
    wanted = by_class if classes == "all" else select_classes(classes, known)
    lacking = [known[i] for i in wanted if i not in by_class]
    if lacking or not by_class:
        raise UsageError(f"{source} holds no embedding of {', '.join(lacking) or 'any class'}")
    own = rows_by_name(labels, dict(enumerate(known)))
    trials = sorted({trial for of_class in by_class.values() for trial in of_class})
    rows = []
    for class_id in wanted:
        found = [by_class[class_id].get(trial) for trial in trials]
        vectors = [
            table[own[class_id]] if class_id in own else None,
            *(None if r is None else file.embeddings[r] for r in found),
        ]
        shown = [None if v is None else sample_images(generator, v, latents) for v in vectors]
        rows.append(PictureRow(known[class_id], shown))
    return side_by_side(["class embedding as trained", *(f"trial {t}" for t in trials)], rows)
