"""target_log_prob, forward and backward: the kernel, the reference, the reference compiled.

Compare within one run. The rows are those of 64 embeddings x 20 latents.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from amfast.ops import target_log_prob, target_log_prob_ref
from bench.contestants import CONTESTANTS, DEVICES, contestant
from tests.tolerances import TOLERANCES

ROWS = 64 * 20


@pytest.mark.parametrize("name", CONTESTANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("classes", [12, 365, 1000])
@pytest.mark.parametrize("device", DEVICES)
def test_forward_and_backward(
    device: str, classes: int, dtype: torch.dtype, name: str, validated: Any
) -> None:
    torch.manual_seed(0)
    logits = (3 * torch.randn(ROWS, classes)).to(device, dtype).requires_grad_()
    target = torch.randint(classes, (ROWS,)).to(device)
    dlog_probs = torch.randn(ROWS).to(device)
    function = contestant(name, "target_log_prob", target_log_prob, target_log_prob_ref, device)

    def run() -> tuple[Tensor, Tensor]:
        log_probs = function(logits, target)
        (dlogits,) = torch.autograd.grad(log_probs, logits, dlog_probs)
        return log_probs, dlogits

    exact = logits.detach().double().requires_grad_()
    wanted = target_log_prob_ref(exact, target)
    (dwanted,) = torch.autograd.grad(wanted, exact, dlog_probs.double())
    rtol, atol = TOLERANCES[dtype]
    validated(
        run,
        group=f"target_log_prob {classes} {str(dtype).removeprefix('torch.')} {device}",
        contestant=name,
        wanted=(wanted, dwanted),
        rtol=rtol,
        atol=atol,
        bytes_moved=3 * logits.numel() * logits.element_size(),  # read twice, gradient written
    )
