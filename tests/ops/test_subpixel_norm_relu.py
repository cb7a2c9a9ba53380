"""What is particular to subpixel_norm_relu; the rest is in tests/ops/test_map_ops.py."""

from __future__ import annotations

import torch

from amfast.ops import subpixel_norm_relu


def test_every_phase_lands_where_the_docstring_says() -> None:
    x = torch.randn(1, 8, 4, 3)
    y = subpixel_norm_relu(x, torch.ones(1, 2), torch.full((1, 2), 9.0)) - 9
    for p in (0, 1):
        for q in (0, 1):
            for i, j, c in ((0, 0, 0), (2, 1, 1)):
                wanted = x[0, (2 * p + q) * 2 + c, i + p, j + q]
                torch.testing.assert_close(y[0, c, 2 * i + p, 2 * j + q], wanted, rtol=0, atol=1e-5)


def test_what_the_result_does_not_show_gets_no_gradient_and_adds_none() -> None:
    x = torch.randn(1, 4, 3, 4)
    unseen = torch.ones(2, 2, 3, 4, dtype=torch.bool)
    for p in (0, 1):
        for q in (0, 1):
            unseen[p, q, p : p + 2, q : q + 3] = False
    x[unseen.view(1, 4, 3, 4)] = torch.nan
    leaves = [leaf.requires_grad_() for leaf in (x, torch.ones(1, 1), torch.ones(1, 1))]
    dx, dscale, dshift = torch.autograd.grad(subpixel_norm_relu(*leaves).sum(), leaves)
    assert dx[unseen.view(1, 4, 3, 4)].eq(0).all()
    assert dscale.isfinite().all() and dshift.isfinite().all()
