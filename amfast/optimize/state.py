"""A batch of trials between two steps, so that a stopped one can go on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from amfast.optimize.trials import Trial


@dataclass(frozen=True)
class BatchState:
    """All that ``optimize_batch`` needs to go on as if it had never stopped.

    ``step`` is the next step and the first of a resample: the latents are drawn anew.
    """

    trials: tuple[Trial, ...]
    step: int
    start: Tensor  # [T, E]
    embeddings: Tensor  # [T, E]
    adam_mean: Tensor  # [T, E]
    adam_square: Tensor  # [T, E]
    adam_steps: Tensor  # [T, 1] float64
    active: Tensor  # [T] bool
    history: Tensor  # [T, steps, 2]

    @staticmethod
    def begin(trials: Sequence[Trial], start: Tensor, steps: int) -> BatchState:
        """A batch before its first step; ``start`` ``[T, E]`` has a row for every trial."""
        count = len(trials)
        return BatchState(
            trials=tuple(trials),
            step=0,
            start=start,
            embeddings=start,
            adam_mean=torch.zeros_like(start),
            adam_square=torch.zeros_like(start),
            adam_steps=start.new_zeros(count, 1, dtype=torch.float64),
            active=torch.ones(count, dtype=torch.bool, device=start.device),
            history=start.new_full((count, steps, 2), torch.nan, dtype=torch.float32),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by its name; each has a row for every trial."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def only(self, wanted: Iterable[Trial]) -> BatchState:
        """The rows of those trials of this batch that are ``wanted``, in the batch's order."""
        chosen = set(wanted)
        rows = [i for i, trial in enumerate(self.trials) if trial in chosen]
        picked = {name: value[rows] for name, value in self.tensors().items()}
        return BatchState(tuple(self.trials[i] for i in rows), self.step, **picked)

    def to(self, device: torch.device) -> BatchState:
        moved = {name: value.to(device) for name, value in self.tensors().items()}
        return BatchState(self.trials, self.step, **moved)
