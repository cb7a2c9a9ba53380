"""The command that does a run again, through the command line's own parser."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
import typer

from amfast.classes import select_classes
from amfast.cli import app
from amfast.config import RunConfig, make_config
from amfast.report.command import reproduce_command

NAMES = {i: f"class {i}" for i in range(12)}


def parsed(command: str) -> RunConfig:
    """As ``amfast run`` would have it, before ``auto`` is resolved."""
    program, subcommand, *arguments = shlex.split(command)
    assert (program, subcommand) == ("amfast", "run")
    run = typer.main.get_command(app).commands["run"]  # type: ignore[attr-defined]
    options = dict(run.make_context("run", arguments).params)
    values = {name: options[name] for name in RunConfig.model_fields if name in options}
    for name in ("weights", "classifier_weights"):
        values[name] = None if values[name] is None else str(values[name])
    values["classes"] = select_classes(options["classes"], list(NAMES.values()))
    return make_config(**values)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"device": "cpu", "dtype": "fp32", "seed": 7}, " --seed 7 --device cpu --dtype fp32"),
        ({"method": "am-s"}, " --method am-s"),
        ({"method": "am-s", "lr": 0.1}, " --method am-s --lr 0.1"),
        ({"profile": "biggan-am"}, " --profile biggan-am"),
        ({"profile": "biggan-am", "trials": 5}, " --profile biggan-am --trials 5"),
        ({"method": "am-d-l", "diversity_weight": 0.25, "diversity": "pixel"},
         " --method am-d-l --diversity pixel --lambda 0.25"),
        ({"noise_layer": True, "init": "top-5", "stop": "prob=0.95"},
         " --init top-5 --noise-layer --stop prob=0.95"),
        ({"microbatch": 5, "batch_embeddings": 1, "latents": 4, "steps": 6},
         " --steps 6 --latents 4 --batch-embeddings 1 --microbatch 5"),
        ({"deterministic": True, "device": "cpu"}, " --device cpu --deterministic"),
        ({"weights": "/a b/$(id)/'x'.pth", "truncation": 0.5},
         """ --weights '/a b/$(id)/'"'"'x'"'"'.pth' --truncation 0.5"""),
        ({"generator": "biggan-256", "classifier": "timm:vit", "classifier_weights": "random"},
         " --generator biggan-256 --classifier timm:vit --classifier-weights random"),
    ],
)  # fmt: skip
def test_only_what_differs_is_said_and_it_parses_to_the_same(
    changes: dict[str, Any], words: str
) -> None:
    config = make_config(classes=tuple(range(12)), **changes)
    command = reproduce_command(config, NAMES)
    assert command == f"amfast run --classes all{words}"
    assert parsed(command) == config


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ((3,), "3"),
        ((3, 4), "3,4"),
        ((0, 1, 2, 3, 7, 9, 10, 11), "0-3,7,9-11"),
        ((5, 4, 3), "5,4,3"),
        ((11, *range(11)), "11,0-10"),
    ],
)
def test_classes_in_their_order(classes: tuple[int, ...], said: str) -> None:
    config = make_config(classes=classes)
    command = reproduce_command(config, NAMES)
    assert command == f"amfast run --classes {said}"
    assert parsed(command).classes == classes
