"""``amfast classes``: the names that ``--classes`` takes."""

from __future__ import annotations

from typing import Annotated

import typer

from amfast.classifiers import class_names
from amfast.cli import options
from amfast.cli.console import complain, print_json, printable, stdout


def register(app: typer.Typer) -> None:
    app.command()(classes)


def classes(
    search: Annotated[str, typer.Argument(help="Part of a name; without it, all.")] = "",
    classifier: options.Classifier = "embedded",
    as_json: options.Json = False,
) -> None:
    """List a classifier's classes by id and name."""

    labels = class_names(classifier)
    found = [(i, name) for i, name in enumerate(labels) if search.lower() in name.lower()]
    if as_json:
        print_json([{"class_id": i, "name": name} for i, name in found])
    else:
        for i, name in found:
            stdout.print(f"{i:>5}  {printable(name)}", highlight=False, markup=False)
    if not found:
        complain(f"no class of {classifier} has {search!r} in its name")
        raise typer.Exit(1)
