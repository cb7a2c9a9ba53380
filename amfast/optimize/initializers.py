"""Where a trial's embedding starts (paper, section 2: AM-S and AM-L)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from amfast.errors import UsageError
from amfast.optimize.trials import Trial

if TYPE_CHECKING:  # config needs the methods' names before generators can be imported
    from amfast.generators.protocol import Generator

MethodName = Literal["am-s", "am-l"]


@dataclass(frozen=True)
class Method:
    """AM-S starts at the class's own embedding, AM-L at the mean of all; both add N(0, 0.1)."""

    starts_at: Literal["own", "mean"]
    learning_rate: float
    noise: float = 0.1


METHODS: dict[MethodName, Method] = {
    "am-s": Method("own", learning_rate=0.01),
    "am-l": Method("mean", learning_rate=0.1),
}


def initial_embeddings(
    method: Method, generator: Generator, rows: Sequence[int | None], trials: Sequence[Trial]
) -> Tensor:
    """Starting embeddings ``[T, E]`` in fp32 on the generator's device.

    ``rows`` holds, for each trial, the generator's own row for the target class, or None where it
    has none; AM-S then raises ``UsageError``.
    """
    table = generator.class_embeddings
    starts = []
    for row, trial in zip(rows, trials, strict=True):
        if method.starts_at == "mean":
            base = table.mean(dim=0)
        elif row is None:
            raise UsageError(
                f"am-s starts from the class's own embedding, and {generator.spec.name} has none "
                f"for target {trial.class_id}: use am-l, which starts from the mean"
            )
        else:
            base = table[row]
        noise = torch.randn(table.shape[1], generator=trial.random("start"))
        starts.append(base + method.noise * noise.to(base))
    return torch.stack(starts)
