"""cond_norm_relu, forward and backward: the kernel, the reference, the reference compiled.

Compare within one run. The maps are those behind the generators' norms.
"""

from __future__ import annotations

from typing import Any

import pytest

from amfast.ops import cond_norm_relu, cond_norm_relu_ref
from bench.contestants import CONTESTANTS, PLACES, SHAPES, draw, time_op


@pytest.mark.parametrize("name", CONTESTANTS)
@pytest.mark.parametrize("place", PLACES, ids="-".join)
def test_forward_and_backward(place: tuple[str, str], name: str, benchmark: Any) -> None:
    device, shape = place
    (n, c, size), d = SHAPES[device][shape], draw(device)
    x = d.map(n, c, size, size)
    inputs = [x, d.factor(n, c), d.factor(n, c)]
    functions = (cond_norm_relu, cond_norm_relu_ref)
    # x and y forward, x, dy and dx backward
    time_op(benchmark, "cond_norm_relu", name, place, functions, inputs, 5 * x.numel())
