"""upsample_add_to_rgb, forward and backward: the kernel, the reference, the reference compiled.

Compare within one run. The maps are those before the generators' images.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from amfast.ops import upsample_add_to_rgb, upsample_add_to_rgb_ref
from bench.contestants import CONTESTANTS, SHAPES, agree, contestant, draw, forward_and_backward


@pytest.mark.parametrize("name", CONTESTANTS)
@pytest.mark.parametrize("shape", ["embedded-64", "biggan-128-128"])
def test_forward_and_backward(shape: str, name: str, benchmark: Any) -> None:
    (n, c, size), d = SHAPES[shape], draw()
    h, skip = d.map(n, c, size, size), d.map(n, c, size // 2, size // 2)
    scale, shift, bias = d.factor(1, c)[0], d.factor(1, c)[0], torch.randn(3)
    frozen = {"scale": scale, "shift": shift, "weight": d.map(3, c, 3, 3), "bias": bias}
    ref = functools.partial(upsample_add_to_rgb_ref, **frozen)
    run = contestant(name, "upsample_add_to_rgb", upsample_add_to_rgb, upsample_add_to_rgb_ref)
    function = functools.partial(run, **frozen)
    agree(function, ref, [h, skip])
    benchmark(forward_and_backward(function, [h, skip]))
    if benchmark.stats is not None:  # None under --benchmark-disable
        products = 2 * 27 * h.numel()  # forward and backward
        seconds = benchmark.stats.stats.median
        benchmark.extra_info["GFLOP/s"] = round(2 * products / seconds / 1e9, 1)
