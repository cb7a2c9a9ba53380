"""The trials that are under way, on disk: what a killed run goes on from."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from amfast.config import RunConfig
from amfast.errors import RunError
from amfast.optimize.noise_layer import noise_layer_size
from amfast.optimize.slots import MEASURES, Slots
from amfast.optimize.trials import Trial
from amfast.runs.facts import RunFacts
from amfast.runs.tensor_file import check_generator, check_tensors, read_tensors, write_tensors
from amfast.text import parse_json

KIND = "amfast-under-way"


def write_state(path: Path, state: Slots, facts: RunFacts, config: RunConfig) -> None:
    """Write trials between two steps. Raises ``RunError`` where that cannot be done."""
    metadata = {
        **_identity(facts, config),
        "trials": json.dumps([[trial.class_id, trial.index] for trial in state.trials]),
        "generator": facts.generator["name"],
    }
    tensors = {name: tensor.cpu() for name, tensor in state.tensors().items()}
    write_tensors(path, KIND, tensors, metadata)


def read_state(path: Path, facts: RunFacts, config: RunConfig) -> Slots:
    """Read it back.

    Raises ``RunError`` for a file that is missing, damaged, or of another generator or run.
    """
    tensors, metadata = read_tensors(path, KIND)
    check_generator(path, metadata, facts.generator["name"], facts.generator["fingerprint"])
    for name, value in _identity(facts, config).items():
        if metadata.get(name) != value:
            raise RunError(f"{path} has {name} {metadata.get(name)}, expected {value}")
    try:
        trials = tuple(
            Trial(int(c), int(i), config.seed) for c, i in parse_json(metadata["trials"])
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RunError(f"{path} is damaged: {error!r} in its metadata") from None
    rows, width = len(trials), facts.generator["embedding_dim"]
    learned = width
    if config.noise_layer:
        learned += noise_layer_size(facts.generator["latent_dim"])
    variables = (torch.float32, [rows, learned])
    expected = {
        "start": (torch.float32, [rows, width]),
        **dict.fromkeys(("variables", "adam_mean", "adam_square"), variables),
        "adam_steps": (torch.int64, [rows]),
        "loss_scale": (torch.float32, [rows]),
        "active": (torch.bool, [rows]),
        "step": (torch.int64, [rows]),
        "history": (torch.float32, [rows, config.steps, MEASURES]),
    }
    check_tensors(path, tensors, expected)
    slots = Slots(trials, **tensors)
    for step, updates in zip(slots.step.tolist(), slots.adam_steps.tolist(), strict=True):
        if not 0 <= updates <= step < config.steps:
            raise RunError(
                f"{path} is damaged: a trial of {config.steps} steps is at step {step} "
                f"after {updates} updates"
            )
    known = torch.arange(config.steps)[None] < slots.step[:, None]  # [T, steps]
    sound = {
        "a trial is there twice": len(set(trials)) == rows,
        "a variable is not finite": slots.variables.isfinite().all(),
        "Adam's moments are not finite": (slots.adam_mean + slots.adam_square).isfinite().all(),
        "a loss scale is below one": (slots.loss_scale >= 1).all(),
        "a trial failed and is under way": slots.active.all(),
        "a history ends elsewhere": (slots.history.isfinite() == known[:, :, None]).all(),
    }
    for problem, is_well in sound.items():
        if not is_well:
            raise RunError(f"{path} is damaged: {problem}")
    return slots


def _identity(facts: RunFacts, config: RunConfig) -> dict[str, str]:
    """The metadata that says whose trials they are; a file that differs in it is another's."""
    return {
        "seed": str(config.seed),
        "method": config.method,
        "generator_fingerprint": facts.generator["fingerprint"],
        "classifier_fingerprint": facts.classifier["fingerprint"],
    }
