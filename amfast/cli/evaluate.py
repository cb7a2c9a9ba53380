"""``amfast evaluate`` and ``amfast rank``: what a run's embeddings are worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from amfast.cli import options
from amfast.cli.console import cell, print_json, printable, say, stdout
from amfast.evaluation.compare import METRICS, Metric, SetName, parse_metrics
from amfast.evaluation.evaluate import Evaluation, gaps_closed
from amfast.evaluation.networks import Features
from amfast.evaluation.rank import rank_run
from amfast.evaluation.session import Listener, evaluate_path
from amfast.metrics.measure import Measure
from amfast.metrics.ranking import FLOOR, Diversity

Floor = Annotated[
    float, typer.Option(help="Target probability from which a trial counts as recognised.")
]


def register(app: typer.Typer) -> None:
    app.command()(evaluate)
    app.command()(rank)


def evaluate(
    embeddings: Annotated[Path, typer.Argument(help="A run directory or an embeddings file.")],
    against: Annotated[
        str | None,
        typer.Option(
            help="A folder of real images, original for the classes as trained alone, or renderer "
            "(the embedded pair's own pictures, its default).",
            metavar="DIR|original|renderer",
        ),
    ] = None,
    metrics: Annotated[
        str, typer.Option(help=f"all, or some of {', '.join(METRICS)}, with commas.")
    ] = "all",
    images_per_class: Annotated[int, typer.Option(help="Images of each set of a class.")] = 1000,
    pairs: Annotated[int, typer.Option(help="Random pairs of a set for LPIPS, MS-SSIM.")] = 200,
    judge: options.Judge = None,
    judge_weights: options.ClassifierWeights = None,
    features: options.Features = "auto",
    min_target_prob: Floor = FLOOR,
    generator: Annotated[
        str | None, typer.Option(help="The generator of an embeddings file; a run names its own.")
    ] = None,
    weights: options.Weights = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Measure diversity and realism: classes as trained, optimised, mixed, and real images."""
    started = Listener(
        on_start=lambda classes: say(f"evaluating {classes} classes"),
        on_class=lambda found: say(f"class {found.target.class_id} {found.target.name} is done"),
        on_note=say,
    )
    done = evaluate_path(
        embeddings,
        against=against,
        metrics=cast(list[Metric], parse_metrics(metrics)),
        images_per_class=images_per_class,
        pairs=pairs,
        seed=seed,
        generator=generator,
        weights=weights,
        judge=judge,
        judge_weights=judge_weights,
        features=cast(Features, features),
        min_target_prob=min_target_prob,
        device=device,
        listener=started,
    )
    if as_json:
        return print_json(done.evaluation.to_json())
    _show(done.evaluation)
    if done.path is not None:
        written = printable(f"figures: {done.path}")
        stdout.print(written, highlight=False, markup=False, soft_wrap=True)


def rank(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    min_target_prob: Floor = FLOOR,
    by: Annotated[str, typer.Option(help="Diversity: distance or ms_ssim.")] = "distance",
    as_json: options.Json = False,
) -> None:
    """Order the trials of every class, and say why the first is the best."""
    ranked = rank_run(run, min_target_prob=min_target_prob, by=cast(Diversity, by))
    if as_json:
        classes = [found.to_json() for found in ranked]
        return print_json({"min_target_prob": min_target_prob, "by": by, "classes": classes})
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("class", "order", "why"):
        table.add_column(heading, overflow="fold")
    for found in ranked:
        order = " ".join(map(str, found.order)) or "-"
        table.add_row(cell(f"{found.class_id} {found.name}"), order, cell(found.why))
    stdout.print(table)


def _show(found: Evaluation) -> None:
    """The classes, then all of them together, then what went wrong."""
    if of_a_class := [m.name for m in found.classes[0].sets["am"]]:
        _show_classes(found, of_a_class)
    whole = Table(title="all classes together", box=SIMPLE_HEAD, pad_edge=False)
    whole.add_column("")
    for of_set in found.overall:
        whole.add_column(of_set, justify="right")
    for name in dict.fromkeys(m.name for measures in found.overall.values() for m in measures):
        whole.add_row(cell(name), *(_number(_named(m, name)) for m in found.overall.values()))
    for name, sets in found.overall_gaps_closed.items():
        shares = (f"{sets[s]:.0f} %" if s in sets else "" for s in found.overall)
        whole.add_row(cell(f"gap in {name} closed"), *shares)
    stdout.print(whole)
    for class_id, name, trial, step in found.failed:
        say(f"trial {trial} of class {class_id} {name} failed at step {step}")
    for note in found.notes:
        say(f"note: {note}")


def _show_classes(found: Evaluation, names: list[str]) -> None:
    table = Table(
        title="class as trained -> best trial (mixed, real); share of the gap to real closed",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("class", overflow="fold")
    for name in names:
        table.add_column(cell(name), justify="right")
    for of_class in found.classes:
        gaps = gaps_closed(of_class.sets)
        cells = [_values(of_class.sets, name, gaps) for name in names]
        table.add_row(cell(f"{of_class.target.class_id} {of_class.target.name}"), *cells)
    stdout.print(table)


def _values(
    sets: dict[SetName, list[Measure]], name: str, gaps: dict[str, dict[SetName, float]]
) -> str:
    own, am, mixed, real = (
        _number(_named(sets.get(s, []), name)) for s in ("original", "am", "mixed", "real")
    )
    others = ", ".join(n for n in (mixed, real) if n != "-")
    share = f" {gaps[name]['am']:.0f}%" if name in gaps else ""
    return f"{own} -> {am}{f' ({others})' if others else ''}{share}"


def _named(measures: list[Measure], name: str) -> Measure | None:
    return next((m for m in measures if m.name == name), None)


def _number(measure: Measure | None) -> str:
    return "-" if measure is None else f"{measure.value:.3f}"
