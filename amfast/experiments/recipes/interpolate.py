"""Fig. 4: from one latent to another, and from the class's own embedding to AM's."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from amfast.api import own_rows
from amfast.experiments.laboratory import Laboratory
from amfast.experiments.measured import Finding
from amfast.images.picture import PictureRow, side_by_side
from amfast.interpolation import between, frame_images
from amfast.metrics.diversity import pooled_distance
from amfast.metrics.embedding import evaluation_latents
from amfast.runs.files import write_bytes

FRAMES = 9


def interpolate(lab: Laboratory) -> list[Finding]:
    run = lab.optimise("AM-L", new_classes=True, method="am-l")
    lab.measure("AM-L", run.directory.path)
    job = lab.job(method="am-l")
    generator, table = job.generator, job.generator.class_embeddings
    rows, best = own_rows(generator, job.classifier), run.result.best()
    first, last = evaluation_latents(2, generator.spec.latent_dim, lab.options.seed, table.device)
    shown, largest = [], {"z": 0.0, "c": 0.0}
    for class_id, trial in best.items():
        found = trial.embedding.to(table)
        own = table[rows[class_id]] if class_id in rows else table.mean(dim=0)
        strips = {
            "z": frame_images(generator, found[None], between(first, last, FRAMES)),
            "c": frame_images(generator, between(own, found, FRAMES), first[None]),
        }
        shown.append(PictureRow(job.label(class_id), list(strips.values())))
        for name, strip in strips.items():
            largest[name] = max(largest[name], _largest_share(strip))
    headings = ["between two latents", "from the class as trained to AM-L"]
    path = lab.folder / "interpolation.png"
    write_bytes(path, side_by_side(headings, shown))
    lab.files["interpolations"] = str(path)
    return [
        Finding(
            f"Images change gradually on the way in {name}",
            share < 0.5,
            f"the largest of {FRAMES - 1} changes is {100 * share:.0f} % of them all, in the class "
            f"where it is most; even ones are {100 / (FRAMES - 1):.0f} %",
        )
        for name, share in largest.items()
    ]


def _largest_share(strip: Tensor) -> float:
    """The largest change between neighbouring frames ``[F, 3, R, R]``, of the sum of all."""
    changes = pooled_distance(strip, torch.tensor(list(pairwise(range(len(strip))))))
    return float(changes.max() / changes.sum())
