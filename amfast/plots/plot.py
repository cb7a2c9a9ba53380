"""``amfast plot``: one figure of a run from its name to its file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from amfast.errors import UsageError
from amfast.plots.canvas import check_format, style, to_file
from amfast.plots.interpolation import draw_interpolation
from amfast.plots.scatter import draw_scatter
from amfast.plots.trajectories import draw_trajectories
from amfast.runs.files import refuse_unwritable, write_bytes

FigureName = Literal["4", "7", "steps"]
FIGURES: tuple[FigureName, ...] = get_args(FigureName)


def plot_run(
    run: str | Path,
    figure: FigureName = "7",
    *,
    out: str | Path | None = None,
    class_name: str | None = None,
    seed: int = 0,
    weights: str | Path | None = None,
    device: str = "auto",
) -> Path:
    """Draw a figure of a run and write it; the path that was written.

    ``"7"`` is the paper's scatter of diversity against realism, from ``evaluation.json``; ``"4"``
    its interpolations, of the class ``class_name``; ``"steps"`` how the trials went, of one class
    or of all. ``out`` is a ``.svg``, ``.pdf`` or ``.png``, by default ``figure-<name>.svg`` in the
    run. ``seed`` (of the latents), ``weights`` and ``device`` are for figure 4. Equal runs and
    arguments give equal bytes, with the same matplotlib.

    Raises ``UsageError`` for another figure, format or class and where matplotlib is missing,
    ``RunError`` for a file that cannot be written, and as the figure's own function does.
    """
    if figure not in FIGURES:
        raise UsageError(f"no figure is called {figure!r}; there are {', '.join(FIGURES)}")
    if figure == "4" and class_name is None:
        raise UsageError("figure 4 is of one class: name it with --class")
    if figure == "7" and class_name is not None:
        raise UsageError("figure 7 is of all classes: leave --class out")
    source = Path(run)
    path = source / f"figure-{figure}.svg" if out is None else Path(out)
    check_format(path)
    with style():
        if figure == "7":
            drawn = draw_scatter(source)
        elif figure == "steps":
            drawn = draw_trajectories(source, class_name)
        else:
            refuse_unwritable(path)  # before the networks are loaded
            drawn = draw_interpolation(
                source, str(class_name), seed=seed, weights=weights, device=device
            )
        write_bytes(path, to_file(drawn, path.suffix.lower()))
    return path
