"""``subpixel_norm_relu`` in Triton.

A tile is made of pixels of x with all four phases: four pixels of the result, or fewer at the
border, where the result does not show every phase.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from amfast.ops._checks import check_affine, check_like
from amfast.ops.subpixel_norm_relu import check_phases
from amfast.ops.triton import _maps
from amfast.ops.triton._launch import on_device_of


@triton.jit
def _phase(PHASE: tl.constexpr, row, first_row, column, x_height, x_width, channel, channels):
    """Where one phase of pixels of x is in the result, and which of them it shows.

    Rows of the result count from the first that the pixels in ``first_row`` of x appear in.
    """
    p: tl.constexpr = PHASE // 2
    q: tl.constexpr = PHASE % 2
    pixel = (2 * (row - first_row) - p) * 2 * (x_width - 1) + 2 * column - q
    rows = (row >= p) & (row < x_height - 1 + p)
    columns = (column >= q) & (column < x_width - 1 + q)
    shown = (rows & columns)[:, None] & (channel < channels)[None, :]
    return pixel[:, None] * channels + channel[None, :], shown


@triton.jit
def _phases(image, first, pixel, channel, x_height, x_width, channels):
    """Where the phases of the pixels ``first + pixel`` of x are in the result.

    Returns an offset, which may be large, four tiles of small ones from there, and their masks.
    """
    row = (first + pixel) // x_width
    column = first + pixel - row * x_width
    first_row = first // x_width
    result_row = image * 2 * (x_height - 1) + 2 * first_row
    start = result_row * 2 * (x_width - 1) * channels
    at0, shown0 = _phase(0, row, first_row, column, x_height, x_width, channel, channels)
    at1, shown1 = _phase(1, row, first_row, column, x_height, x_width, channel, channels)
    at2, shown2 = _phase(2, row, first_row, column, x_height, x_width, channel, channels)
    at3, shown3 = _phase(3, row, first_row, column, x_height, x_width, channel, channels)
    return start, (at0, at1, at2, at3), (shown0, shown1, shown2, shown3)


@triton.jit
def _sources(image, first, pixel, channel, pixels, channels):
    """Where the phases are in x: an offset, and four tiles of small ones from there."""
    start = (image * pixels + first) * 4 * channels
    at = 4 * pixel[:, None] * channels + channel[None, :]
    return start, (at, at + channels, at + 2 * channels, at + 3 * channels)


@triton.jit
def _forward_kernel(
    x,
    scale,
    shift,
    y,
    x_height,
    x_width,
    channels,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    pixels = x_height * x_width
    image, block, channel = _maps.place(pixels, channels, BLOCK_P, BLOCK_C)
    by_scale, by_shift = _maps.load_affine(scale, shift, image, channel, channels)
    first = block * BLOCK_P
    pixel = tl.arange(0, BLOCK_P)
    x_start, x_at = _sources(image, first, pixel, channel, pixels, channels)
    start, at, shown = _phases(image, first, pixel, channel, x_height, x_width, channels)
    values = _maps.load_four(x + x_start, x_at, shown)
    for k in tl.static_range(4):
        result = _maps.norm_relu(values[k], by_scale, by_shift)
        tl.store(y + start + at[k], result.to(y.dtype.element_ty), mask=shown[k])


@triton.jit
def _backward_kernel(
    dy,
    x,
    scale,
    shift,
    dx,
    dscale,
    dshift,
    x_height,
    x_width,
    channels,
    blocks,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    STEPS: tl.constexpr,
):
    pixels = x_height * x_width
    image, block, channel = _maps.place(pixels, channels, BLOCK_P * STEPS, BLOCK_C)
    by_scale, by_shift = _maps.load_affine(scale, shift, image, channel, channels)
    pixel = tl.arange(0, BLOCK_P)
    scale_sum = tl.zeros((BLOCK_P, BLOCK_C), by_scale.dtype)
    shift_sum = tl.zeros((BLOCK_P, BLOCK_C), by_scale.dtype)
    for step in range(STEPS):
        first = (block * STEPS + step) * BLOCK_P
        mask = (first + pixel < pixels)[:, None] & (channel < channels)[None, :]
        x_start, x_at = _sources(image, first, pixel, channel, pixels, channels)
        start, at, shown = _phases(image, first, pixel, channel, x_height, x_width, channels)
        values = _maps.load_four(x + x_start, x_at, shown)
        dys = _maps.load_four(dy + start, at, shown)
        for k in tl.static_range(4):
            # What is not shown was read as zeros, so that it gets and adds none.
            through = _maps.norm_relu_gradient(dys[k], values[k], by_scale, by_shift)
            dvalue = tl.where(shown[k], through * by_scale, 0.0)
            tl.store(dx + x_start + x_at[k], dvalue.to(dx.dtype.element_ty), mask=mask)
            scale_sum += through * values[k].to(by_scale.dtype)
            shift_sum += through
    _maps.store_sums(dscale, dshift, scale_sum, shift_sum, image, block, blocks, channel, channels)


def forward(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    check_phases(x)
    check_affine(scale, shift, x, channels=x.shape[1] // 4)
    x, scale, shift = _maps.channels_last(x), scale.contiguous(), shift.contiguous()
    (images, channels), (height, width) = scale.shape, x.shape[2:]
    y = _maps.new_map(x, images, channels, 2 * (height - 1), 2 * (width - 1))
    if y.numel():
        tiles = _maps.tiling(x, height * width, channels, rounds=1)
        with on_device_of(x):
            _forward_kernel[(tiles.programs(images, height * width, channels),)](
                *(x, scale, shift, y, height, width, channels), **_maps.options(tiles)
            )
    return y


def backward(dy: Tensor, x: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    check_phases(x)
    check_affine(scale, shift, x, channels=x.shape[1] // 4)
    (images, channels), (height, width) = scale.shape, x.shape[2:]
    check_like("dy", dy, "x", x, [images, channels, 2 * (height - 1), 2 * (width - 1)])
    dy, x = _maps.channels_last(dy), _maps.channels_last(x)
    scale, shift = scale.contiguous(), shift.contiguous()
    dx = _maps.new_map(x, *x.shape)
    if not x.numel():
        return dx, scale.new_zeros(scale.shape), shift.new_zeros(shift.shape)
    tiles = _maps.tiling(x, height * width, channels, rounds=1, most_pixels=32)
    sums = _maps.Sums(scale, tiles.blocks(height * width))
    with on_device_of(x):
        _backward_kernel[(tiles.programs(images, height * width, channels),)](
            *(dy, x, scale, shift, dx, *sums.parts, height, width, channels, sums.blocks),
            STEPS=tiles.steps,
            **_maps.options(tiles),
        )
    return dx, *sums.add_up()
