"""ms_ssim: the kernel, the reference, the reference compiled, and pytorch-msssim where it is there.

Compare within one run. Forward alone is what scoring a run needs; pytorch-msssim refuses sides of
160 pixels and less.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor

from amfast.ops import ms_ssim
from bench.contestants import (
    CONTESTANTS,
    DEVICES,
    agree,
    contestant,
    forward_and_backward,
    time_run,
    triton_serves,
)

#: Pairs and pixels a side.
SHAPES = {"embedded-64": (200, 64), "biggan-128": (32, 128), "biggan-256": (64, 256)}


def kernel(x: Tensor, y: Tensor) -> Tensor:
    return ms_ssim(x, y, data_range=1.0)


def reference(x: Tensor, y: Tensor) -> Tensor:
    return ms_ssim(x, y, data_range=1.0, impl="ref")


def package(x: Tensor, y: Tensor) -> Tensor:
    import pytorch_msssim

    value: Tensor = pytorch_msssim.ms_ssim(x, y, data_range=1.0, size_average=False)
    return value


def draw_pairs(pairs: int, size: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Images ``[pairs, 3, size, size]`` in [0, 1], alike enough for gradients at every scale."""
    random = torch.Generator().manual_seed(0)
    x, noise = (torch.rand(pairs, 3, size, size, generator=random) for _ in range(2))
    return x.to(device), (0.7 * x + 0.3 * noise).to(device)


@pytest.mark.parametrize("name", [*CONTESTANTS, "pytorch-msssim"])
@pytest.mark.parametrize("direction", ["forward", "forward-backward"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("on", DEVICES)
def test_pairs(on: str, shape: str, direction: str, name: str, benchmark: Any) -> None:
    device, (pairs, size) = torch.device(on), SHAPES[shape]
    backward = direction == "forward-backward"
    if backward and size == 256:
        pairs //= 4  # the reference keeps some 40 maps of all images
    if name != "pytorch-msssim":
        function = contestant(name, "ms_ssim_scale", kernel, reference, on)
    elif size <= 160 or find_spec("pytorch_msssim") is None:
        pytest.skip("pytorch-msssim is not installed, or refuses images of 160 pixels and less")
    else:
        function = package
    with triton_serves("ms_ssim_scale") if name == "triton" else nullcontext():
        images = draw_pairs(pairs, size, on)
        torch.testing.assert_close(function(*images), reference(*images), rtol=1e-4, atol=1e-4)
        if backward:
            agree(function, reference, images)
            run = forward_and_backward(function, images)
        else:
            run = partial(function, *images)
        # both images read, and in the backward read again and their gradients written
        moved_bytes = (6 if backward else 2) * images[0].nbytes
        time_run(benchmark, f"ms_ssim {shape} {direction} {on}", name, device, run, moved_bytes)
