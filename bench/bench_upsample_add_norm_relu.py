"""upsample_add_norm_relu, forward and backward: the kernel, the reference, the reference compiled.

Compare within one run. The maps are those behind the generators' norms.
"""

from __future__ import annotations

from typing import Any

import pytest

from amfast.ops import upsample_add_norm_relu, upsample_add_norm_relu_ref
from bench.contestants import CONTESTANTS, SHAPES, agree, contestant, draw, forward_and_backward


@pytest.mark.parametrize("name", CONTESTANTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_and_backward(shape: str, name: str, benchmark: Any) -> None:
    (n, c, size), d = SHAPES[shape], draw()
    x, skip = d.map(n, c, size, size), d.map(n, c, size // 2, size // 2)
    inputs = [x, skip, d.factor(n, c), d.factor(n, c)]
    function = contestant(
        name, "upsample_add_norm_relu", upsample_add_norm_relu, upsample_add_norm_relu_ref
    )
    agree(function, upsample_add_norm_relu_ref, inputs)
    benchmark(forward_and_backward(function, inputs))
    if benchmark.stats is not None:  # None under --benchmark-disable
        # h, skip, sum and out forward; dsum, dout, sum, dh and dskip backward
        moved = 7.5 * x.numel() * 4
        benchmark.extra_info["GB/s"] = round(moved / benchmark.stats.stats.median / 1e9, 2)
