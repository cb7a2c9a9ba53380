"""``amfast diagnose``: which classes of a generator need repair."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from amfast.cli import options
from amfast.cli.console import cell, print_json, say, stdout
from amfast.device import resolve_device
from amfast.evaluation.diagnose import Diagnosis
from amfast.evaluation.diagnose import diagnose as diagnose_generator
from amfast.evaluation.networks import Features, load_networks
from amfast.generators import load_generator
from amfast.runs.files import refuse_unwritable, write_bytes


def register(app: typer.Typer) -> None:
    app.command()(diagnose)


def diagnose(
    generator: options.Generator = "embedded",
    weights: options.Weights = None,
    images: Annotated[int, typer.Option(help="Images of every class.")] = 200,
    judge: options.Judge = None,
    judge_weights: options.ClassifierWeights = None,
    features: options.Features = "auto",
    out: Annotated[
        Path | None,
        typer.Option(help="Write the classes for amfast run --classes @FILE.", metavar="FILE"),
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Sample every class, and rank those that lack diversity or are not recognised."""
    if out is not None:
        refuse_unwritable(out)
    loaded = load_generator(generator, weights=weights, device=device)
    networks = load_networks(
        generator=generator,
        judge=judge,
        judge_weights=judge_weights,
        features=cast(Features, features),
        device=resolve_device(device),
    )
    found = diagnose_generator(
        loaded, networks, images=images, seed=seed, on_class=lambda name: say(f"{name} is done")
    )
    if out is not None:
        write_bytes(out, found.to_classes_file().encode())
        ready = f", for amfast run --classes @{out}" if found.poor else ""
        say(f"wrote {out}: {len(found.poor)} classes{ready}")
    if as_json:
        return print_json(found.to_json())
    _show(found)


def _show(found: Diagnosis) -> None:
    table = Table(title="the worst first", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("class", overflow="fold")
    table.add_column(f"diversity\n{cell(found.diversity_measure)}", justify="right")
    table.add_column("target\nprobability", justify="right")
    table.add_column("lacks")
    for row in found.classes:
        name = cell(f"{row.class_id} {row.name}")
        values = f"{row.diversity:.3f}", f"{row.target_prob:.3f}"
        table.add_row(name, *values, ", ".join(row.lacks) or "-")
    stdout.print(table)
    stdout.print(
        f"{len(found.poor)} of {len(found.classes)} classes need repair: diversity below "
        f"{found.diversity_threshold:.3f} or target probability below "
        f"{found.target_prob_threshold:.3f}",
        highlight=False,
        soft_wrap=True,
    )
