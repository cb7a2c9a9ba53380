"""``amfast import``: read embeddings that were made elsewhere into a run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amfast.cli import options
from amfast.cli.console import print_json, say
from amfast.exchange import import_embeddings


def register(app: typer.Typer) -> None:
    app.command("import")(import_)


def import_(
    files: Annotated[
        list[Path],
        typer.Argument(help="003_name.npy of biggan-am, learned_embeds files, embeddings files."),
    ],
    generator: options.Generator = "embedded",
    weights: options.Weights = None,
    classifier: Annotated[
        str | None,
        typer.Option(help="Whose classes are meant; without it, the generator's."),
    ] = None,
    outdir: Annotated[Path, typer.Option(help="Folder of runs.", metavar="DIR")] = Path("runs"),
    as_json: options.Json = False,
) -> None:
    """Make a run directory of embeddings from other programs, for sample and export."""

    run = import_embeddings(
        files, outdir, generator=generator, weights=weights, classifier=classifier
    )
    if as_json:
        content = {"run_dir": run.path, "embeddings": run.embeddings_path}
        return print_json({key: str(path) for key, path in content.items()})
    count = sum(file.embeddings for file in run.imported.files)
    say(f"wrote {run.path}: {count} embeddings of {len(files)} files")
