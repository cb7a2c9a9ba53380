"""``cond_norm_relu`` in Triton."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from amfast.ops._checks import check_affine, check_like, check_map
from amfast.ops.triton import _maps
from amfast.ops.triton._launch import on_device_of


@triton.jit
def _forward_kernel(
    x, scale, shift, y, pixels, channels, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr
):
    image, block, channel = _maps.place(pixels, channels, BLOCK_P, BLOCK_C)
    by_scale, by_shift = _maps.load_affine(scale, shift, image, channel, channels)
    pixel = tl.arange(0, BLOCK_P)
    mask = (block * BLOCK_P + pixel < pixels)[:, None] & (channel < channels)[None, :]
    start = (image * pixels + block * BLOCK_P) * channels
    at = pixel[:, None] * channels + channel[None, :]
    value = tl.load(x + start + at, mask=mask, other=0.0)
    result = _maps.norm_relu(value, by_scale, by_shift)
    tl.store(y + start + at, result.to(y.dtype.element_ty), mask=mask)


@triton.jit
def _backward_kernel(
    dy,
    x,
    scale,
    shift,
    dx,
    dscale,
    dshift,
    pixels,
    channels,
    blocks,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    STEPS: tl.constexpr,
):
    image, block, channel = _maps.place(pixels, channels, BLOCK_P * STEPS, BLOCK_C)
    by_scale, by_shift = _maps.load_affine(scale, shift, image, channel, channels)
    pixel = tl.arange(0, BLOCK_P)
    at = pixel[:, None] * channels + channel[None, :]
    scale_sum = tl.zeros((BLOCK_P, BLOCK_C), by_scale.dtype)
    shift_sum = tl.zeros((BLOCK_P, BLOCK_C), by_scale.dtype)
    for step in range(STEPS):
        first = (block * STEPS + step) * BLOCK_P
        mask = (first + pixel < pixels)[:, None] & (channel < channels)[None, :]
        start = (image * pixels + first) * channels
        value = tl.load(x + start + at, mask=mask, other=0.0)
        d = tl.load(dy + start + at, mask=mask, other=0.0)
        through = _maps.norm_relu_gradient(d, value, by_scale, by_shift)
        tl.store(dx + start + at, (through * by_scale).to(dx.dtype.element_ty), mask=mask)
        scale_sum += through * value.to(by_scale.dtype)
        shift_sum += through
    _maps.store_sums(dscale, dshift, scale_sum, shift_sum, image, block, blocks, channel, channels)


def forward(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    check_map("x", x)
    check_affine(scale, shift, x, channels=x.shape[1])
    x, scale, shift = _maps.channels_last(x), scale.contiguous(), shift.contiguous()
    images, channels, height, width = x.shape
    y = _maps.new_map(x, *x.shape)
    if x.numel():
        tiles = _maps.tiling(x, height * width, channels, rounds=4)
        with on_device_of(x):
            _forward_kernel[(tiles.programs(images, height * width, channels),)](
                *(x, scale, shift, y, height * width, channels), **_maps.options(tiles)
            )
    return y


def backward(dy: Tensor, x: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    check_map("x", x)
    check_like("dy", dy, "x", x, list(x.shape))
    check_affine(scale, shift, x, channels=x.shape[1])
    dy, x = _maps.channels_last(dy), _maps.channels_last(x)
    scale, shift = scale.contiguous(), shift.contiguous()
    images, channels, height, width = x.shape
    dx = _maps.new_map(x, *x.shape)
    if not x.numel():
        return dx, scale.new_zeros(scale.shape), shift.new_zeros(shift.shape)
    tiles = _maps.tiling(x, height * width, channels, rounds=2, most_pixels=128)
    sums = _maps.Sums(scale, tiles.blocks(height * width))
    with on_device_of(x):
        _backward_kernel[(tiles.programs(images, height * width, channels),)](
            *(dy, x, scale, shift, dx, *sums.parts, height * width, channels, sums.blocks),
            STEPS=tiles.steps,
            **_maps.options(tiles),
        )
    return dx, *sums.add_up()
