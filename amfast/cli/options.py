"""Options that more than one command takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Generator = Annotated[str, typer.Option(help="The generator: embedded.")]
Weights = Annotated[
    Path | None, typer.Option(help="Another safetensors file for the generator.", metavar="FILE")
]
Classifier = Annotated[str, typer.Option(help="The classifier: embedded, embedded-unseen.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda:N.")]
Dtype = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")]
Seed = Annotated[int, typer.Option(help="Decides every random number.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
