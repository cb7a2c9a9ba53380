"""One finished trial on disk."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import torch

from amfast.errors import RunError
from amfast.optimize.engine import TrialResult
from amfast.optimize.slots import MEASURES
from amfast.optimize.trials import Trial
from amfast.runs.facts import RunFacts
from amfast.runs.files import write_bytes
from amfast.runs.tensor_file import check_generator, check_tensors, read_tensors, write_tensors

KIND = "amfast-trial"
_ENDS = ("failed_at", "stopped_at")


def trial_path(directory: Path, class_id: int, index: int) -> Path:
    """Numbers only: a class name never becomes part of a path."""
    return directory / "trials" / f"{class_id:04d}-{index:02d}.safetensors"


def write_trial(
    path: Path,
    result: TrialResult,
    facts: RunFacts,
    method: str,
    write: Callable[[Path, bytes], None] = write_bytes,
) -> None:
    """Write a trial, in fp32. Raises ``RunError`` where the file cannot be written."""
    tensors = {
        "embedding": result.embedding.float(),
        "start": result.start.float(),
        "history": result.history.float(),
    }
    metadata = {
        **_identity(result.trial, facts, method),
        "class_name": facts.class_names[result.trial.class_id],
        "generator": facts.generator["name"],
        "classifier": facts.classifier["name"],
        **{name: _text(getattr(result, name)) for name in _ENDS},
    }
    write_tensors(path, KIND, tensors, metadata, write)


def read_trial(path: Path, trial: Trial, facts: RunFacts, method: str, steps: int) -> TrialResult:
    """Read back ``trial``, run for ``steps`` steps.

    Raises ``RunError`` for a file that is missing, truncated, damaged, of another trial, method,
    classifier or generator, or whose tensors are not ``embedding`` and ``start`` [E] and
    ``history`` [steps, 3] in fp32.
    """
    tensors, metadata = read_tensors(path, KIND)
    check_generator(path, metadata, facts.generator["name"], facts.generator["fingerprint"])
    for name, value in _identity(trial, facts, method).items():
        if metadata.get(name) != value:
            raise RunError(f"{path} has {name} {metadata.get(name)}, expected {value}")
    embedding = (torch.float32, [facts.generator["embedding_dim"]])
    history = (torch.float32, [steps, MEASURES])
    expected = {"embedding": embedding, "start": embedding, "history": history}
    check_tensors(path, tensors, expected)
    ends = {name: metadata.get(name, "missing") for name in _ENDS}
    for name, end in ends.items():
        if end and not re.fullmatch("[0-9]{1,9}", end):
            raise RunError(f"{path} is damaged: {name} is {end[:80]}, expected a step or nothing")
    failed_at, stopped_at = (int(end) if end else None for end in ends.values())
    return TrialResult(trial, failed_at=failed_at, stopped_at=stopped_at, **tensors)


def _text(step: int | None) -> str:
    return "" if step is None else str(step)


def _identity(trial: Trial, facts: RunFacts, method: str) -> dict[str, str]:
    """The metadata that says whose trial it is; a file that differs in it is another's."""
    return {
        "class_id": str(trial.class_id),
        "trial": str(trial.index),
        "seed": str(trial.seed),
        "method": method,
        "generator_fingerprint": facts.generator["fingerprint"],
        "classifier_fingerprint": facts.classifier["fingerprint"],
    }
