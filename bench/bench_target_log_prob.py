"""target_log_prob, forward and backward: the kernel, the reference, the reference compiled.

Compare within one run. The rows are those of 64 embeddings x 20 latents.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from amfast.ops import target_log_prob, target_log_prob_ref
from bench.contestants import CONTESTANTS, DEVICES, time_op

ROWS = 64 * 20


@pytest.mark.parametrize("name", CONTESTANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("classes", [12, 365, 1000])
@pytest.mark.parametrize("device", DEVICES)
def test_forward_and_backward(
    device: str, classes: int, dtype: torch.dtype, name: str, benchmark: Any
) -> None:
    torch.manual_seed(0)
    logits = 3 * torch.randn(ROWS, classes).to(dtype)
    target = torch.randint(classes, (ROWS,)).to(device)
    functions = (lambda x: target_log_prob(x, target), lambda x: target_log_prob_ref(x, target))
    place = (device, f"{classes} {str(dtype).removeprefix('torch.')}")
    # read twice, gradient written
    time_op(benchmark, "target_log_prob", name, place, functions, [logits], 3 * logits.numel())
