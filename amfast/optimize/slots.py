"""The trials under way, as numbers: what a step changes and what a stopped run goes on from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from amfast.optimize.trials import Trial

#: What a history has of every step: the mean target log-probability and the mean target
#: probability, and how far apart the images are (``amfast.metrics.diversity.pooled_spread``).
MEASURES = 3


@dataclass(frozen=True)
class Slots:
    """T trials side by side, each with its own clock, moments and history; rows share nothing."""

    trials: tuple[Trial, ...]
    start: Tensor  # [T, E]
    variables: Tensor  # [T, V]: the embedding and, where a noise layer is learned too, its numbers
    adam_mean: Tensor  # [T, V]
    adam_square: Tensor  # [T, V]
    adam_steps: Tensor  # [T] int64: updates made
    loss_scale: Tensor  # [T] fp32, a power of two
    active: Tensor  # [T] bool: false for a trial that failed
    step: Tensor  # [T] int64: steps done
    history: Tensor  # [T, steps, MEASURES] fp32, NaN where nothing is known

    @staticmethod
    def begin(
        trials: Sequence[Trial],
        start: Tensor,
        steps: int,
        loss_scale: float = 1.0,
        noise_layers: Tensor | None = None,
    ) -> Slots:
        """Trials before their first step; ``start`` ``[T, E]`` has a row for each.

        So has ``noise_layers`` ``[T, V - E]``, if they are learned too.
        """
        count, device = len(trials), start.device
        variables = start.clone()
        if noise_layers is not None:
            variables = torch.cat([start, noise_layers.to(start)], dim=1)
        return Slots(
            trials=tuple(trials),
            start=start,
            variables=variables,
            adam_mean=torch.zeros_like(variables),
            adam_square=torch.zeros_like(variables),
            adam_steps=torch.zeros(count, dtype=torch.int64, device=device),
            loss_scale=torch.full((count,), loss_scale, device=device),
            active=torch.ones(count, dtype=torch.bool, device=device),
            step=torch.zeros(count, dtype=torch.int64, device=device),
            history=torch.full((count, steps, MEASURES), torch.nan, device=device),
        )

    @property
    def embeddings(self) -> Tensor:
        """``[T, E]``, a view."""
        return self.variables[:, : self.start.shape[1]]

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by its name; each has a row for every trial."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def rows(self, rows: Sequence[int]) -> Slots:
        """A copy of some of the rows."""
        picked = {name: value[list(rows)] for name, value in self.tensors().items()}
        return Slots(tuple(self.trials[row] for row in rows), **picked)

    def apart(self) -> list[Slots]:
        """Every row by itself; what is changed in place there is changed here."""
        tensors = self.tensors()
        return [
            Slots((trial,), **{name: value[row : row + 1] for name, value in tensors.items()})
            for row, trial in enumerate(self.trials)
        ]

    def only(self, wanted: Iterable[Trial]) -> Slots:
        """A copy of the rows of those trials that are ``wanted``, in their present order."""
        chosen = set(wanted)
        return self.rows([row for row, trial in enumerate(self.trials) if trial in chosen])

    def joined(self, others: Slots) -> Slots:
        """These rows and then ``others``."""
        theirs = others.tensors()
        both = {name: torch.cat([value, theirs[name]]) for name, value in self.tensors().items()}
        return Slots(self.trials + others.trials, **both)

    def to(self, device: torch.device) -> Slots:
        return Slots(self.trials, **{k: v.to(device) for k, v in self.tensors().items()})


def united(parts: Sequence[Slots]) -> Slots:
    """The rows of all of ``parts``, at least one; of a trial in several, the furthest."""
    together = parts[0]
    for part in parts[1:]:
        together = together.joined(part)
    steps = together.step.tolist()
    furthest: dict[Trial, int] = {}
    for row, trial in enumerate(together.trials):
        if trial not in furthest or steps[row] > steps[furthest[trial]]:
            furthest[trial] = row
    return together.rows(list(furthest.values()))
