"""``amfast doctor``: what this installation is and what it will use."""

from __future__ import annotations

import typer
from rich.markup import escape
from rich.table import Table

from amfast.cli import options
from amfast.cli.console import print_json, stdout
from amfast.doctor import examine


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(as_json: options.Json = False) -> None:
    """Say versions, devices, and which implementation of each op serves, and why."""

    report = examine()
    if as_json:
        return print_json(report)
    for title in ("versions", "devices"):
        stdout.print(f"[bold]{title}[/bold]")
        for name, value in report[title].items():
            stdout.print(f"  {name}: {value}", highlight=False, markup=False)
    for said in report["slower"]:
        stdout.print(f"slower: {said}", highlight=False, markup=False)
        stdout.print("  amfast run --strict refuses that", highlight=False)
    table = Table(title="implementations", title_justify="left")
    for heading in ("op", "device", "implementation", "why"):
        table.add_column(heading, no_wrap=heading == "op")
    for op in report["ops"]:
        table.add_row(*(escape(str(op[k])) for k in ("op", "device", "implementation", "reason")))
    stdout.print(table)
