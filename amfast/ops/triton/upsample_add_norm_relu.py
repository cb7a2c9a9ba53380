"""``upsample_add_norm_relu`` in Triton.

A tile is made of pixels of skip and of the 2x2 squares in the other maps that they stand for.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from amfast.ops._checks import check_affine, check_like, check_map
from amfast.ops.triton import _maps
from amfast.ops.triton._launch import on_device_of
from amfast.ops.upsample_add_norm_relu import check_maps


@triton.jit
def _squares(image, first, pixel, channel, pixels, width, channels):
    """Where the squares of the pixels ``first + pixel`` of skip are in the other maps.

    Returns the offset of the first one, which may be large, and small ones from there to each of
    the four pixels, ``[BLOCK_P, BLOCK_C]``. ``width`` is that of skip.
    """
    first_row = first // width
    rows = (first + pixel) // width - first_row
    start = (image * pixels * 4 + 2 * (first + first_row.to(tl.int64) * width)) * channels
    at = 2 * (pixel + rows * width)[:, None] * channels + channel[None, :]
    below = at + 2 * width * channels
    return start, (at, at + channels, below, below + channels)


@triton.jit
def _forward_kernel(
    h,
    skip,
    scale,
    shift,
    added,
    out,
    pixels,
    width,
    channels,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    image, block, channel = _maps.place(pixels, channels, BLOCK_P, BLOCK_C)
    by_scale, by_shift = _maps.load_affine(scale, shift, image, channel, channels)
    first = block * BLOCK_P
    pixel = tl.arange(0, BLOCK_P)
    mask = (first + pixel < pixels)[:, None] & (channel < channels)[None, :]
    skip += (image * pixels + first) * channels
    shared = tl.load(skip + pixel[:, None] * channels + channel[None, :], mask=mask, other=0.0)
    start, at = _squares(image, first, pixel, channel, pixels, width, channels)
    squares = _maps.load_four(h + start, at, (mask, mask, mask, mask))
    for k in tl.static_range(4):
        total = squares[k].to(by_scale.dtype) + shared.to(by_scale.dtype)
        rounded = total.to(added.dtype.element_ty)
        result = _maps.norm_relu(rounded, by_scale, by_shift)
        tl.store(added + start + at[k], rounded, mask=mask)
        tl.store(out + start + at[k], result.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _backward_kernel(
    dsum,
    dout,
    added,
    scale,
    shift,
    dh,
    dskip,
    dscale,
    dshift,
    pixels,
    width,
    channels,
    blocks,
    HAS_DSUM: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    STEPS: tl.constexpr,
):
    image, block, channel = _maps.place(pixels, channels, BLOCK_P * STEPS, BLOCK_C)
    by_scale, by_shift = _maps.load_affine(scale, shift, image, channel, channels)
    pixel = tl.arange(0, BLOCK_P)
    scale_sum = tl.zeros((BLOCK_P, BLOCK_C), by_scale.dtype)
    shift_sum = tl.zeros((BLOCK_P, BLOCK_C), by_scale.dtype)
    for step in range(STEPS):
        first = (block * STEPS + step) * BLOCK_P
        mask = (first + pixel < pixels)[:, None] & (channel < channels)[None, :]
        masks = (mask, mask, mask, mask)
        start, at = _squares(image, first, pixel, channel, pixels, width, channels)
        values = _maps.load_four(added + start, at, masks)
        douts = _maps.load_four(dout + start, at, masks)
        if HAS_DSUM:
            dsums = _maps.load_four(dsum + start, at, masks)
        total = tl.zeros((BLOCK_P, BLOCK_C), by_scale.dtype)
        for k in tl.static_range(4):
            through = _maps.norm_relu_gradient(douts[k], values[k], by_scale, by_shift)
            scale_sum += through * values[k].to(by_scale.dtype)
            shift_sum += through
            d = through * by_scale
            if HAS_DSUM:
                d += dsums[k].to(by_scale.dtype)
            total += d
            tl.store(dh + start + at[k], d.to(dh.dtype.element_ty), mask=mask)
        skip_start = (image * pixels + first) * channels
        skip_at = pixel[:, None] * channels + channel[None, :]
        tl.store(dskip + skip_start + skip_at, total.to(dskip.dtype.element_ty), mask=mask)
    _maps.store_sums(dscale, dshift, scale_sum, shift_sum, image, block, blocks, channel, channels)


def forward(h: Tensor, skip: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    check_maps(h, skip)
    check_affine(scale, shift, h, channels=h.shape[1])
    h, skip = _maps.channels_last(h), _maps.channels_last(skip)
    scale, shift = scale.contiguous(), shift.contiguous()
    images, channels, height, width = skip.shape
    added, out = _maps.new_map(h, *h.shape), _maps.new_map(h, *h.shape)
    if h.numel():
        tiles = _maps.tiling(h, height * width, channels, rounds=1)
        with on_device_of(h):
            _forward_kernel[(tiles.programs(images, height * width, channels),)](
                *(h, skip, scale, shift, added, out, height * width, width, channels),
                **_maps.options(tiles),
            )
    return added, out


def backward(
    dsum: Tensor | None, dout: Tensor, added: Tensor, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    check_map("added", added)
    check_like("dout", dout, "added", added, list(added.shape))
    if dsum is not None:
        check_like("dsum", dsum, "added", added, list(added.shape))
    check_affine(scale, shift, added, channels=added.shape[1])
    dout, added = _maps.channels_last(dout), _maps.channels_last(added)
    scale, shift = scale.contiguous(), shift.contiguous()
    images, channels, height, width = added.shape
    dh = _maps.new_map(added, *added.shape)
    dskip = _maps.new_map(added, images, channels, height // 2, width // 2)
    if not added.numel():
        return dh, dskip, scale.new_zeros(scale.shape), shift.new_zeros(shift.shape)
    pixels = (height // 2) * (width // 2)
    tiles = _maps.tiling(added, pixels, channels, rounds=1, most_pixels=32)
    sums = _maps.Sums(scale, tiles.blocks(pixels))
    with on_device_of(added):
        _backward_kernel[(tiles.programs(images, pixels, channels),)](
            *(dout if dsum is None else _maps.channels_last(dsum), dout, added, scale, shift),
            *(dh, dskip, *sums.parts, pixels, width // 2, channels, sums.blocks),
            HAS_DSUM=dsum is not None,
            STEPS=tiles.steps,
            **_maps.options(tiles),
        )
    return dh, dskip, *sums.add_up()
