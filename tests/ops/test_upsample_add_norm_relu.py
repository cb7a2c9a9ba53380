"""What is particular to upsample_add_norm_relu; the rest is in tests/ops/test_map_ops.py."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from amfast.ops import upsample_add_norm_relu, upsample_add_norm_relu_ref
from tests.ops import maps
from tests.ops.map_cases import JUNCTION


@pytest.mark.parametrize("used", [0, 1])
def test_one_result_alone_may_be_used(used: int) -> None:
    """Then the other's gradient is not there at all, rather than zero."""
    inputs = JUNCTION.inputs((2, 17, 3, 2))

    def one(*leaves: Tensor) -> Tensor:
        return upsample_add_norm_relu(*leaves)[used]

    def one_ref(*leaves: Tensor) -> Tensor:
        return upsample_add_norm_relu_ref(*leaves)[used] + 0 * sum(x.sum() for x in leaves)

    leaves = [x.requires_grad_() for x in inputs]
    value = one(*leaves)
    d = torch.randn_like(value)
    found = torch.autograd.grad(value, leaves, d, allow_unused=True)
    wanted = torch.autograd.grad(one_ref(*leaves), leaves, d)
    assert [g is None for g in found] == [False, False, used == 0, used == 0]
    present = [(f, w) for f, w in zip(found, wanted, strict=True) if f is not None]
    maps.assert_near([f for f, _ in present], [w.double() for _, w in present])
