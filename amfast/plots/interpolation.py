"""Figure 4 of the paper: images between two latents, and between two class embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from amfast.api import rows_by_name
from amfast.errors import RunError
from amfast.evaluation.checks import check_seed
from amfast.evaluation.pictures import class_latents
from amfast.evaluation.subject import open_subject
from amfast.images.picture import to_bytes
from amfast.interpolation import between, frame_images
from amfast.plots.canvas import new_figure, shown
from amfast.plots.choice import pick_class

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Images of a strip.
_FRAMES = 9


def draw_interpolation(
    run: Path, class_name: str, *, seed: int, weights: str | Path | None, device: str
) -> Figure:
    """Strips of one class: between two latents z with its embedding as trained and with AM's best,
    then between the two embeddings c at each of these latents.

    Steps are even and straight. For a class that the generator lacks, the mean of its embeddings,
    where AM-L starts, is in place of the one as trained. ``seed`` decides the latents.

    Raises ``UsageError`` for a class that the run lacks, ``RunError`` for images that are not
    finite, and as ``open_subject`` does.
    """
    check_seed(seed)
    subject = open_subject(run, weights=weights, device=device)
    targets = {target.class_id: target for target in subject.targets}
    names = {class_id: target.name for class_id, target in targets.items()}
    target = targets[pick_class(class_name, names)]
    generator, table = subject.generator, subject.generator.class_embeddings
    own = rows_by_name(generator.spec.labels, {target.class_id: target.name})
    start = table[own[target.class_id]] if own else table.mean(dim=0)
    first = "original" if own else "mean"
    end = target.embedding.to(start)
    z = class_latents(generator, target.class_id, 2, seed)  # [2, D]
    between_z, between_c = between(z[0], z[1], _FRAMES), between(start, end, _FRAMES)
    strips = {
        f"{first}\n$z_1$ to $z_2$": frame_images(generator, start[None], between_z),
        "AM\n$z_1$ to $z_2$": frame_images(generator, end[None], between_z),
        f"$z_1$\n{first} to AM": frame_images(generator, between_c, z[:1]),
        f"$z_2$\n{first} to AM": frame_images(generator, between_c, z[1:]),
    }
    figure, axes = new_figure(len(strips), 1, width=8, height=0.4 + 0.85 * len(strips))
    for (axis,), (label, images) in zip(axes, strips.items(), strict=True):
        if not images.isfinite().all():
            raise RunError(f"images of class {target.name} between two embeddings are not finite")
        strip = torch.cat(list(to_bytes(images)), dim=2)  # [3, R, 9 R]
        axis.imshow(strip.permute(1, 2, 0).numpy(), interpolation="none")
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
        axis.set_ylabel(label, rotation=0, ha="right", va="center", parse_math=True)
    figure.suptitle(f"{shown(target.name)}, trial {target.trial}", fontsize=10)
    return figure
