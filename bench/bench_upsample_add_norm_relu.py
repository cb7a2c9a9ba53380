"""upsample_add_norm_relu, forward and backward: the kernel, the reference, the reference compiled.

Compare within one run. The maps are those behind the generators' norms.
"""

from __future__ import annotations

from typing import Any

import pytest

from amfast.ops import upsample_add_norm_relu, upsample_add_norm_relu_ref
from bench.contestants import CONTESTANTS, PLACES, SHAPES, draw, time_op


@pytest.mark.parametrize("name", CONTESTANTS)
@pytest.mark.parametrize("place", PLACES, ids="-".join)
def test_forward_and_backward(place: tuple[str, str], name: str, benchmark: Any) -> None:
    device, shape = place
    (n, c, size), d = SHAPES[device][shape], draw(device)
    x, skip = d.map(n, c, size, size), d.map(n, c, size // 2, size // 2)
    inputs = [x, skip, d.factor(n, c), d.factor(n, c)]
    functions = (upsample_add_norm_relu, upsample_add_norm_relu_ref)
    # h, skip, sum and out forward; dsum, dout, sum, dh and dskip backward
    time_op(benchmark, "upsample_add_norm_relu", name, place, functions, inputs, 7.5 * x.numel())
