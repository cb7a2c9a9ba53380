"""lpips_distance, forward and backward: the kernel, the reference, the reference compiled.

Compare within one run. The maps are those of AlexNet's five layers, which LPIPS was fitted to, and
of the embedded classifier's widest and narrowest.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from amfast.ops import lpips_distance, lpips_distance_ref
from bench.contestants import CONTESTANTS, DEVICES, draw, time_op

#: Channels and size of the maps.
LAYERS = {
    "alexnet-1": (64, 55),
    "alexnet-2": (192, 27),
    "alexnet-3": (384, 13),
    "alexnet-4-and-5": (256, 13),
    "embedded-1": (16, 32),
    "embedded-6": (96, 4),
}
IMAGES = {"cpu": 16, "cuda": 64}


@pytest.mark.parametrize("name", CONTESTANTS)
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("device", DEVICES)
def test_forward_and_backward(device: str, layer: str, name: str, benchmark: Any) -> None:
    (c, size), d = LAYERS[layer], draw(device)
    fx, fy = (d.map(IMAGES[device], c, size, size).relu() for _ in range(2))
    w = torch.rand(c).to(device)
    functions = (
        lambda fx, fy: lpips_distance(fx, fy, w),
        lambda fx, fy: lpips_distance_ref(fx, fy, w),
    )
    # both maps forward, both maps and both gradients backward
    moved = 6 * fx.numel()
    time_op(benchmark, "lpips_distance", name, (device, layer), functions, [fx, fy], moved)
