"""``amfast reproduce``: the paper's experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from amfast.cli import options
from amfast.cli.console import cell, complain, print_json, printable, say, stdout
from amfast.cli.interrupt import INTERRUPTED
from amfast.cli.progress import RunDisplay
from amfast.device import keep_freed_memory
from amfast.experiments import EXPERIMENTS, Reporter, Reproduction
from amfast.experiments import reproduce as reproduce_experiment

#: Of the measures in ``experiment.json``.
_SHOWN = ("lpips", "ms_ssim", "top1", "inception_score", "fid")
_HEADINGS = {"inception_score": "IS", "fid": "FID", "lpips": "LPIPS", "ms_ssim": "MS-SSIM"}


def register(app: typer.Typer) -> None:
    app.command()(reproduce)


def reproduce(
    name: Annotated[
        str | None, typer.Argument(help="An experiment; without one, a list of them.")
    ] = None,
    generator: options.Generator = "embedded",
    weights: options.Weights = None,
    classifier: Annotated[
        str | None, typer.Option(help="In place of the experiment's; as for amfast run.")
    ] = None,
    classifier_weights: options.ClassifierWeights = None,
    classes: Annotated[
        str | None, typer.Option(help="In place of the experiment's; as for amfast run.")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Trials for each class.")] = None,
    steps: Annotated[int, typer.Option(help="Adam steps of a trial.")] = 200,
    latents: Annotated[int, typer.Option(help="Latents in a step.")] = 20,
    images_per_class: Annotated[
        int, typer.Option(help="Images of each set of a class that are measured.")
    ] = 1000,
    pairs: Annotated[int, typer.Option(help="Random pairs of a set for LPIPS, MS-SSIM.")] = 200,
    against: Annotated[
        str | None,
        typer.Option(help="Real images: a folder, original or renderer.", metavar="DIR|..."),
    ] = None,
    judge: options.Judge = None,
    judge_weights: options.ClassifierWeights = None,
    features: options.Features = "auto",
    classifiers: Annotated[
        list[str] | None,
        typer.Option("--with-classifier", help="For classifiers: once for each of them."),
    ] = None,
    snapshots: Annotated[
        list[str] | None,
        typer.Option("--snapshot", help="For snapshots: the generator's weights, earliest first."),
    ] = None,
    discriminator_weights: Annotated[
        Path | None, typer.Option(help="For finetune: 138k/D.pth, say.", metavar="PATH")
    ] = None,
    seed: options.Seed = 0,
    batch_embeddings: Annotated[int, typer.Option(help="Embeddings optimised together.")] = 64,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    outdir: Annotated[Path, typer.Option(help="Folder of experiments.", metavar="DIR")] = Path(
        "experiments"
    ),
    as_json: options.Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")] = False,
) -> None:
    """Make one of the paper's experiments; what is there already is not done again."""
    if name is None:
        return _list(as_json=as_json)
    keep_freed_memory()
    silent = quiet or as_json
    try:
        done = reproduce_experiment(
            name,
            outdir,
            reporter=Reporter(
                on_stage=(lambda text: None) if silent else say,
                on_note=(lambda text: None) if silent else say,
                follow=lambda config: RunDisplay(config, quiet=silent),
            ),
            generator=generator,
            weights=_text(weights),
            classifier=classifier,
            classifier_weights=_text(classifier_weights),
            classes=classes,
            trials=trials,
            steps=steps,
            latents=latents,
            images_per_class=images_per_class,
            pairs=pairs,
            against=against,
            judge=judge,
            judge_weights=_text(judge_weights),
            features=features,
            classifiers=tuple(classifiers) if classifiers else None,
            snapshots=tuple(snapshots) if snapshots else None,
            discriminator_weights=_text(discriminator_weights),
            seed=seed,
            batch_embeddings=batch_embeddings,
            device=device,
            dtype=dtype,
        )
    except KeyboardInterrupt:
        complain("interrupted; the same command goes on where it stopped")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        return print_json(done.to_json())
    if not quiet:
        _show(done)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _list(*, as_json: bool) -> None:
    if as_json:
        return print_json(
            [{"name": e.name, "source": e.source, "question": e.question}
             for e in EXPERIMENTS.values()]
        )  # fmt: skip
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("experiment", "paper", "question"):
        table.add_column(heading, overflow="fold")
    for experiment in EXPERIMENTS.values():
        table.add_row(experiment.name, experiment.source, experiment.question)
    stdout.print(table)


def _show(done: Reproduction) -> None:
    table = Table(title=cell(done.experiment.question), box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("images", no_wrap=True)
    known = dict.fromkeys(name for row in done.table.values() for name in row)
    measures = [name for name in known if name.partition("[")[0] in _SHOWN]
    for measure in measures:
        short = measure.partition("[")[0]
        table.add_column(_HEADINGS.get(short, short), justify="right")
    for title, row in done.table.items():
        values = (f"{row[name]:.3f}" if name in row else "-" for name in measures)
        table.add_row(cell(title), *values)
    stdout.print(table)
    for finding in done.findings:
        verdict = "holds" if finding.holds else "does not hold"
        _line(f"{verdict}: {finding.statement} ({finding.figures})")
    for what, path in done.files.items():
        _line(f"{what}: {path}")
    _line(f"figures: {done.folder / 'experiment.json'}")


def _line(text: str) -> None:
    stdout.print(printable(text), highlight=False, markup=False, soft_wrap=True)
