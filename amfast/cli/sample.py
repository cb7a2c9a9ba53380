"""``amfast sample``: draw images of classes, as trained and as optimised, on the same latents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amfast.cli import options
from amfast.cli.console import say
from amfast.config import make_sample_config
from amfast.generators import load_generator
from amfast.runs.files import write_bytes
from amfast.runs.sampling import sample_grid


def register(app: typer.Typer) -> None:
    app.command()(sample)


def sample(
    embeddings: Annotated[
        Path | None,
        typer.Argument(help="An embeddings file or run directory; without it the class alone."),
    ] = None,
    classes: Annotated[str, typer.Option(help="Which classes, as for amfast run.")] = "all",
    count: Annotated[int, typer.Option(help="Images per embedding.")] = 8,
    seed: options.Seed = 0,
    out: Annotated[Path, typer.Option(help="The PNG file to write.")] = Path("sample.png"),
    generator: options.Generator = "embedded",
    weights: options.Weights = None,
    truncation: options.Truncation = 1.0,
    truncation_stats: options.TruncationStats = "upstream",
    eps: options.Eps = "auto",
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
) -> None:
    """Draw a grid: a row per class, its own embedding and then each trial's."""

    config = make_sample_config(
        count=count,
        seed=seed,
        device=device,
        dtype=dtype,
        truncation=truncation,
        truncation_stats=truncation_stats,
        eps=eps,
    )
    loaded = load_generator(
        generator,
        weights=weights,
        device=config.device,
        dtype=config.dtype,
        truncation=config.truncation,
        truncation_stats=config.truncation_stats,
        eps=config.eps,
    )
    picture = sample_grid(loaded, embeddings, classes=classes, count=config.count, seed=config.seed)
    write_bytes(out, picture)
    say(f"wrote {out}")
