"""``amfast report``: a run as one page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amfast.cli import options
from amfast.cli.console import print_json, say
from amfast.report import write_report


def register(app: typer.Typer) -> None:
    app.command()(report)


def report(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of index.html; by default report in the run.", metavar="DIR"),
    ] = None,
    weights: options.Weights = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Write a run's report: one HTML file that needs no network."""
    written = write_report(run, out=out, weights=weights, device=device)
    if as_json:
        return print_json(written.to_json())
    say(f"wrote {written.path} ({written.bytes / 1e6:.1f} MB)")
    if written.left_out:
        say(f"note: {written.left_out}")
