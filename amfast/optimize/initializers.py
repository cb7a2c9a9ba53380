"""Where a trial's embedding starts (paper, section 2: AM-S and AM-L; 3.5: AM-D)."""

from __future__ import annotations

import re
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


@dataclass(frozen=True)
class Start:
    """Where embeddings start, before the method's noise.

    ``"mean"`` of all class embeddings, the class's ``"own"``, ``"random"`` (normal, with the mean
    and deviation that each number has among the class embeddings) or ``"top"``: trial i at the i-th
    of the ``top`` class embeddings whose images look most like the class (paper, section 3.2: top-5
    for Places365), and over again where there are more trials.
    """

    kind: Literal["mean", "own", "random", "top"]
    top: int = 0


def parse_init(text: str, method: Method) -> Start:
    """``"method"`` for the method's own, ``"mean"``, ``"own"``, ``"random"`` or ``"top-K"``.

    Raises ``ValueError`` for anything else.
    """
    if text == "method":
        return Start(method.starts_at)
    if text in ("mean", "own", "random"):
        return Start(text)  # type: ignore[arg-type]
    if found := re.fullmatch(r"top-([1-9]\d{0,3})", text):
        return Start("top", int(found[1]))
    raise ValueError(f"init is {text!r}; it may be method, mean, own, random or top-K, as top-5")


def initial_embeddings(
    start: Start,
    noise: float,
    table: Tensor,
    trials: Sequence[Trial],
    *,
    own: Mapping[int, int],
    top: Mapping[int, Sequence[int]],
) -> Tensor:
    """Starting embeddings ``[T, E]`` in fp32 on the device of the class ``table`` ``[N, E]``.

    ``start`` plus N(0, ``noise``). ``own`` maps a target class to its own row of ``table`` and
    ``top`` to the rows that look most like it, for those starts that need them
    (``amfast.api.check_method`` refuses a run that lacks one).
    """
    mean, deviation = table.mean(dim=0), table.std(dim=0)
    starts = []
    for trial in trials:
        stream = trial.random("start")
        added = torch.randn(table.shape[1], generator=stream).to(table)
        if start.kind == "mean":
            base = mean
        elif start.kind == "own":
            base = table[own[trial.class_id]]
        elif start.kind == "top":
            rows = top[trial.class_id]
            base = table[rows[trial.index % len(rows)]]
        else:
            base = mean + deviation * torch.randn(table.shape[1], generator=stream).to(table)
        starts.append(base + noise * added)
    return torch.stack(starts)
