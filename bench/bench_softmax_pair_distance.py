"""softmax_pair_distance, forward and backward: the kernel, the reference, the reference compiled.

Compare within one run. The rows are those of 64 embeddings x 20 latents, in 10 disjoint pairs each.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from amfast.ops import softmax_pair_distance, softmax_pair_distance_ref
from bench.contestants import CONTESTANTS, DEVICES, time_op

ROWS = 64 * 20


@pytest.mark.parametrize("name", CONTESTANTS)
@pytest.mark.parametrize("classes", [12, 365, 1000])
@pytest.mark.parametrize("device", DEVICES)
def test_forward_and_backward(device: str, classes: int, name: str, benchmark: Any) -> None:
    torch.manual_seed(0)
    logits = 3 * torch.randn(ROWS, classes)
    pairs = torch.randperm(ROWS).view(-1, 2).to(device)
    functions = (
        lambda x: softmax_pair_distance(x, pairs),
        lambda x: softmax_pair_distance_ref(x, pairs),
    )
    # read twice, gradient written
    moved, place = 3 * logits.numel(), (device, f"{classes}")
    time_op(benchmark, "softmax_pair_distance", name, place, functions, [logits], moved)
