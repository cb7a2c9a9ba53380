"""``amfast export``: write a run's embeddings in the form that another program reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from amfast.cli import options
from amfast.cli.console import print_json, say
from amfast.exchange import FORMATS, export_run
from amfast.exchange.export import ExportFormat, TrialChoice


def register(app: typer.Typer) -> None:
    app.command()(export)


def export(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    format: Annotated[str, typer.Option(help=f"One of {', '.join(FORMATS)}.")],
    trials: Annotated[str, typer.Option(help="best (one of each class) or all.")] = "best",
    weights: Annotated[
        Path | None,
        typer.Option(help="The generator's weights, for a whole model.", metavar="PATH"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="What to write; it must not exist yet.", metavar="PATH")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Write a run's embeddings for other programs: alone, or within a whole generator."""

    exported = export_run(
        run,
        cast(ExportFormat, format),
        trials=cast(TrialChoice, trials),
        weights=weights,
        out=out,
    )
    if as_json:
        return print_json(exported.to_json())
    say(
        f"wrote {exported.path}: {len(exported.trials)} embeddings of generator "
        f"{exported.generator} (fingerprint {exported.generator_fingerprint})"
    )
