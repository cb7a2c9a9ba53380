"""upsample_add_to_rgb, forward and backward: the kernel, the reference, the reference compiled.

Compare within one run. The maps are those before the generators' images.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from amfast.ops import upsample_add_to_rgb, upsample_add_to_rgb_ref
from bench.contestants import CONTESTANTS, PLACES, SHAPES, draw, time_op

BEFORE_IMAGES = [(device, shape) for device, shape in PLACES if SHAPES[device][shape][2] >= 64]


@pytest.mark.parametrize("name", CONTESTANTS)
@pytest.mark.parametrize("place", BEFORE_IMAGES, ids="-".join)
def test_forward_and_backward(place: tuple[str, str], name: str, benchmark: Any) -> None:
    device, shape = place
    (n, c, size), d = SHAPES[device][shape], draw(device)
    h, skip = d.map(n, c, size, size), d.map(n, c, size // 2, size // 2)
    factors = [d.factor(1, c)[0], d.factor(1, c)[0]]
    weights = [d.map(3, c, 3, 3), torch.randn(3, dtype=h.dtype)]
    frozen = [x.to(device) for x in (*factors, *weights)]

    def ours(h: Tensor, skip: Tensor) -> Tensor:
        return upsample_add_to_rgb(h, skip, *frozen)

    def reference(h: Tensor, skip: Tensor) -> Tensor:
        return upsample_add_to_rgb_ref(h, skip, *frozen)

    # h, skip and sum forward; sum, dh and dskip backward: three channels are next to nothing
    moved = 4.5 * h.numel()
    time_op(benchmark, "upsample_add_to_rgb", name, place, (ours, reference), [h, skip], moved)
