"""What is particular to cond_norm_relu; the rest is in tests/ops/test_map_ops.py."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from amfast.ops import cond_norm_relu


def one_pixel(x: float, scale: float, shift: float, impl: str) -> tuple[Tensor, list[Tensor]]:
    """The result, and the gradients of x, scale and shift."""
    leaves = [torch.full((1, 1, 1, 1), x), torch.tensor([[scale]]), torch.tensor([[shift]])]
    y = cond_norm_relu(*(leaf.requires_grad_() for leaf in leaves), impl=impl)  # type: ignore[arg-type]
    return y, list(torch.autograd.grad(y.sum(), leaves))


@pytest.mark.parametrize("impl", ["auto", "ref"])
def test_product_and_sum_are_two_roundings(impl: str) -> None:
    """The product is 1 + 2**-11 when rounded, and a little more before that."""
    y, gradients = one_pixel(1 + 2**-12, 1 + 2**-12, -1 - 2**-11, impl)
    assert y.item() == 0
    assert [g.item() for g in gradients] == [0, 0, 0]


@pytest.mark.parametrize("impl", ["auto", "ref"])
def test_relu_passes_a_gradient_on_at_nan_but_not_at_zero(impl: str) -> None:
    y, gradients = one_pixel(2.0, 3.0, -6.0, impl)
    assert y.item() == 0 and [g.item() for g in gradients] == [0, 0, 0]
    y, gradients = one_pixel(2.0, 3.0, torch.nan, impl)
    assert y.isnan() and [g.item() for g in gradients] == [3, 2, 1]
