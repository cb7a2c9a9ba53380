"""``amfast plot``: the paper's figures of a run, as files for a paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from amfast.cli import options
from amfast.cli.console import say
from amfast.plots import FigureName, plot_run


def register(app: typer.Typer) -> None:
    app.command()(plot)


def plot(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    figure: Annotated[
        str,
        typer.Option(
            help="7 (diversity against realism), 4 (interpolations of --class) or steps (how the "
            "trials went)."
        ),
    ] = "7",
    out: Annotated[
        Path | None,
        typer.Option(
            help="What to write: .svg, .pdf or .png; RUN/figure-<name>.svg without it.",
            metavar="FILE",
        ),
    ] = None,
    class_name: Annotated[
        str | None, typer.Option("--class", help="The class, by name or id; for 4 and steps.")
    ] = None,
    seed: options.Seed = 0,
    weights: options.Weights = None,
    device: options.Device = "auto",
) -> None:
    """Draw one of the paper's figures of a run."""
    written = plot_run(
        run,
        cast(FigureName, figure),
        out=out,
        class_name=class_name,
        seed=seed,
        weights=weights,
        device=device,
    )
    say(f"wrote {written}")
