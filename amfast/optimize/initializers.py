"""Where a trial's embedding starts (paper, section 2: AM-S and AM-L; 3.5: AM-D)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from amfast.optimize.trials import Trial

MethodName = Literal["am-s", "am-l", "am-d-s", "am-d-l"]


@dataclass(frozen=True)
class Method:
    """AM-S starts at the class's own embedding, AM-L at the mean of all; both add N(0, 0.1).

    AM-D-S and AM-D-L are the same with an explicit term of diversity (paper, section 3.5).
    """

    starts_at: Literal["own", "mean"]
    learning_rate: float
    noise: float = 0.1
    explicit_diversity: bool = False


METHODS: dict[MethodName, Method] = {
    "am-s": Method("own", learning_rate=0.01),
    "am-l": Method("mean", learning_rate=0.1),
    "am-d-s": Method("own", learning_rate=0.01, explicit_diversity=True),
    "am-d-l": Method("mean", learning_rate=0.1, explicit_diversity=True),
}


def initial_embeddings(
    method: Method, table: Tensor, rows: Mapping[int, int], trials: Sequence[Trial]
) -> Tensor:
    """Starting embeddings ``[T, E]`` in fp32 on the device of the class ``table`` ``[N, E]``.

    ``rows`` maps a target class to its own row of ``table``. AM-S needs one for every trial's class
    (``amfast.api.check_method`` refuses a run that lacks one).
    """
    mean = table.mean(dim=0)
    starts = []
    for trial in trials:
        base = mean if method.starts_at == "mean" else table[rows[trial.class_id]]
        noise = torch.randn(table.shape[1], generator=trial.random("start"))
        starts.append(base + method.noise * noise.to(base))
    return torch.stack(starts)
