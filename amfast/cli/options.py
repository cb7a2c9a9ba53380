"""Options that more than one command takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Generator = Annotated[
    str, typer.Option(help="embedded, biggan-128, biggan-256 or biggan-deep-128, -256, -512.")
]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="The generator's file or directory, or random to try speed and plumbing.",
        metavar="PATH",
    ),
]
Truncation = Annotated[float, typer.Option(help="Scale of the latents, in (0, 1].")]
TruncationStats = Annotated[
    str, typer.Option(help="How it selects BigGAN-deep's statistics: upstream or exact.")
]
Eps = Annotated[
    str, typer.Option(help="BigGAN's eps values: auto, biggan-am (1e-4) or training (1e-5, 1e-6).")
]
Classifier = Annotated[
    str,
    typer.Option(
        help="embedded, embedded-unseen (-again, -undisturbed, -robust), alexnet, resnet50, "
        "inception_v3, resnet50-robust, resnet18-places365, alexnet-places365 or timm:NAME."
    ),
]
ClassifierWeights = Annotated[
    Path | None, typer.Option(help="The classifier's file, or random.", metavar="PATH")
]
Judge = Annotated[
    str | None,
    typer.Option(help="Classifier that says what an image shows; embedded or inception_v3."),
]
Features = Annotated[
    str, typer.Option(help="auto, published (LPIPS's AlexNet, FID's Inception) or classifier.")
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda:N.")]
Dtype = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")]
Seed = Annotated[int, typer.Option(help="Decides every random number.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
