"""subpixel_norm_relu, forward and backward: the kernel, the reference, the reference compiled.

Compare within one run. The maps are those behind the generators' norms.
"""

from __future__ import annotations

from typing import Any

import pytest

from amfast.ops import subpixel_norm_relu, subpixel_norm_relu_ref
from bench.contestants import CONTESTANTS, SHAPES, agree, contestant, draw, forward_and_backward


@pytest.mark.parametrize("name", CONTESTANTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_and_backward(shape: str, name: str, benchmark: Any) -> None:
    (n, c, size), d = SHAPES[shape], draw()
    x = d.map(n, 4 * c, size // 2 + 1, size // 2 + 1)
    inputs = [x, d.factor(n, c), d.factor(n, c)]
    function = contestant(name, "subpixel_norm_relu", subpixel_norm_relu, subpixel_norm_relu_ref)
    agree(function, subpixel_norm_relu_ref, inputs)
    benchmark(forward_and_backward(function, inputs))
    if benchmark.stats is not None:  # None under --benchmark-disable
        moved = 5 * x.numel() * 4  # x and y forward, x, dy and dx backward
        benchmark.extra_info["GB/s"] = round(moved / benchmark.stats.stats.median / 1e9, 2)
