"""``amfast study``: a blind survey of people on a run's images, and its score."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from typer.core import TyperGroup

from amfast.cli import options
from amfast.cli.console import print_json, say, stdout
from amfast.metrics.ranking import FLOOR
from amfast.study import StudyScore, make_study, score_study


class _MakeUnlessNamed(TyperGroup):
    """What does not begin with a command's name, nor asks for help, is meant for ``make``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["make", *args]
        return super().parse_args(ctx, args)


commands = typer.Typer(cls=_MakeUnlessNamed, no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(
        commands,
        name="study",
        help="Ask people which images are more diverse and more real: amfast study RUN writes a "
        "blind survey, amfast study score FILES... says what the answers come to.",
        subcommand_metavar="RUN | score FILES...",
    )


@commands.command()
def make(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    out: Annotated[
        Path | None,
        typer.Option(help="The directory to write; RUN/study without it.", metavar="DIR"),
    ] = None,
    classes: Annotated[
        str, typer.Option(help="Which classes, as for amfast run; of more than 50, 50 drawn.")
    ] = "all",
    seed: Annotated[
        int | None,
        typer.Option(help="Decides latents, sides and order; drawn at random without it."),
    ] = None,
    weights: options.Weights = None,
    min_target_prob: Annotated[
        float, typer.Option(help="As for amfast rank, which picks each class's trial.")
    ] = FLOOR,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Write a blind survey on a run (amfast study RUN does the same): a page, and its key."""
    made = make_study(
        run,
        out=out,
        classes=classes,
        seed=seed,
        weights=weights,
        min_target_prob=min_target_prob,
        device=device,
        on_class=lambda name: say(f"{name} is done"),
    )
    for note in made.notes:
        say(f"note: {note}")
    if as_json:
        return print_json(made.to_json())
    say(
        f"wrote {made.page}: {len(made.key.questions)} questions, "
        f"{made.page_bytes / 1e6:.1f} MB; give participants this file alone"
    )
    say(f"wrote {made.key_path}: which side is which, for amfast study score; keep it to yourself")


@commands.command()
def score(
    files: Annotated[list[Path], typer.Argument(help="Answers as participants downloaded them.")],
    key: Annotated[
        Path | None,
        typer.Option(
            help="The study's key; key.json beside the first file, or here, without it.",
            metavar="PATH",
        ),
    ] = None,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Score the answers: 1 is clearly AM, 3 neutral, 5 clearly the original."""
    found = score_study(files, key=key, seed=seed)
    for note in found.notes:
        say(f"note: {note}")
    if as_json:
        return print_json(found.to_json())
    _show(found)


def _show(found: StudyScore) -> None:
    people = "participant" if found.participants == 1 else "participants"
    table = Table(
        title=f"study {found.study}: {found.participants} {people}; 3 is neutral, lower favours AM",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for heading in ("", "mean ± std", "95 % interval", "won, tied, lost", "the paper's"):
        table.add_column(heading)
    for kind in found.kinds:
        spread = "" if kind.std is None else f" ± {kind.std:.2f}"
        interval = "-" if kind.low is None else f"{kind.low:.2f} to {kind.high:.2f}"
        table.add_row(
            kind.kind,
            f"{kind.mean:.2f}{spread}",
            interval,
            f"{kind.won}, {kind.tied}, {kind.lost} of {len(kind.classes)} classes",
            f"{kind.paper_mean:.2f} ± {kind.paper_std:.2f}",
        )
    stdout.print(table)
