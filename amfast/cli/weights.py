"""``amfast weights``: pretrained files, fetched once, checked, and kept for offline use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from amfast.cli import options
from amfast.cli.console import complain, print_json, stderr, stdout
from amfast.cli.interrupt import INTERRUPTED
from amfast.errors import WeightsError
from amfast.weights import store
from amfast.weights.download import PATIENCE, Patience, Transfer

commands = typer.Typer(no_args_is_help=True)

Names = Annotated[list[str], typer.Argument(help="Names, as amfast weights list gives them.")]


def register(app: typer.Typer) -> None:
    app.add_typer(commands, name="weights", help="Fetch, check and find pretrained weights.")


@commands.command("list")
def list_weights(as_json: options.Json = False) -> None:
    """List what can be fetched, and what is here."""

    found = store.status()
    if as_json:
        return print_json([_plain(asdict(status)) for status in found])
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("name", "kind", "download", "licence", "here"):
        table.add_column(heading, no_wrap=heading != "licence")
    for status in found:
        size = "-" if status.size is None else store.shown_size(status.size)
        table.add_row(status.name, status.kind, size, escape(status.licence), status.state)
    stdout.print(table)
    stdout.print(f"kept in {store.home()}", highlight=False, markup=False, soft_wrap=True)


@commands.command()
def fetch(
    names: Names,
    timeout: Annotated[
        float, typer.Option(help="Seconds without a byte before a source is given up.", min=0.1)
    ] = PATIENCE.timeout,
    as_json: options.Json = False,
) -> None:
    """Download weights, check them and convert them; what is here already is only checked."""

    paths = fetch_all(names, Patience(timeout=timeout), quiet=as_json)
    if as_json:
        return print_json(
            [{"name": name, "path": str(path)} for name, path in zip(names, paths, strict=True)]
        )
    for path in paths:
        stdout.print(str(path), highlight=False, markup=False, soft_wrap=True)


def fetch_all(names: Sequence[str], patience: Patience = PATIENCE, *, quiet: bool) -> list[Path]:
    """The files of these weights, downloaded where they are not here; exits when interrupted."""
    paths = []
    with _Display(quiet=quiet) as display:
        for name in names:
            try:
                path = store.fetch(
                    name, on_progress=display.show, on_note=display.say, patience=patience
                )
            except KeyboardInterrupt:
                display.close()
                complain(f"interrupted; 'amfast weights fetch {name}' goes on from here")
                raise typer.Exit(INTERRUPTED) from None
            paths.append(path)
    return paths


@commands.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names; without them, all that are here.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Check the files as fetched and as converted against what was recorded."""

    wanted = names or [found.name for found in store.status() if found.state == "fetched"]
    report: list[dict[str, Any]] = []
    for name in wanted:
        try:
            report.append({**_plain(asdict(store.verify(name))), "error": None})
        except WeightsError as error:
            report.append({"name": name, "error": str(error)})
            complain(str(error))
            continue
        if not as_json:
            stdout.print(f"{name}: in order", highlight=False, markup=False)
    if as_json:
        print_json(report)
    elif not wanted:
        stdout.print("no weights are here", highlight=False)
    if any(found["error"] for found in report):
        raise typer.Exit(1)


@commands.command("path")
def show_path(
    name: Annotated[str, typer.Argument(help="A name; without it, the folder of all.")] = "",
    as_json: options.Json = False,
) -> None:
    """Say where weights are; the network is not asked."""

    found = str(store.resolve(name) if name else store.home())
    if as_json:
        return print_json({"path": found})
    stdout.print(found, highlight=False, markup=False, soft_wrap=True)


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, "path": str(fields["path"])}


class _Display:
    """Downloads on stderr: a live bar for each file on a terminal, a line in a file."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._tasks: dict[tuple[str, str], TaskID] = {}
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=stderr,
            disable=quiet or not stderr.is_terminal,
        )

    def __enter__(self) -> _Display:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._bar.stop()

    def show(self, now: Transfer) -> None:
        key = now.file, now.source
        if key not in self._tasks:
            self._tasks[key] = self._bar.add_task(escape(now.file), total=now.total)
            if self._bar.disable:
                self.say(f"downloading {now.file} from {now.source}")
        self._bar.update(self._tasks[key], completed=now.done, total=now.total)

    def say(self, text: str) -> None:
        if not self._quiet:
            stderr.print(text, highlight=False, markup=False, soft_wrap=True)
