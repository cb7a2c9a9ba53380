"""``lpips_distance`` in Triton: a program holds some positions of one image with all channels."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from amfast.ops.triton._launch import ROUNDING, on_device_of, triton_accumulator

#: Elements of each map that a program holds, if one position has no more channels than that.
ELEMENTS = 4096


@triton.jit
def _load(
    f,
    image,
    position,
    channel,
    inside,
    image_stride,
    channel_stride,
    position_stride,
    ACC: tl.constexpr,
):
    """A tile of a map, positions by channels, zeros outside it."""
    start = f + image.to(tl.int64) * image_stride
    rows = start + position.to(tl.int64)[:, None] * position_stride
    return tl.load(
        rows + channel.to(tl.int64)[None, :] * channel_stride, mask=inside, other=0.0
    ).to(ACC)


@triton.jit
def _inverse_lengths(f):
    """1 / (length + epsilon) and 1 / length of a tile's positions; 0 where the length is."""
    squares = tl.sum(f * f, axis=1)
    length = tl.sqrt(squares + (squares - squares))  # NaN where the squares are infinite
    nothing = length == 0
    safe = tl.where(nothing, 1.0, length)
    return tl.where(nothing, 0.0, 1 / (length + 1e-10)), tl.where(nothing, 0.0, 1 / safe)


@triton.jit
def _forward_kernel(
    fx,
    fy,
    w,
    sums,
    channels,
    positions,
    blocks,
    x_image,
    x_channel,
    x_position,
    y_image,
    y_channel,
    y_position,
    ACC: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    program = tl.program_id(0)
    image = program // blocks
    position = program % blocks * POSITIONS + tl.arange(0, POSITIONS)
    channel = tl.arange(0, CHANNELS)
    inside = (position < positions)[:, None] & (channel < channels)[None, :]
    x = _load(fx, image, position, channel, inside, x_image, x_channel, x_position, ACC)
    y = _load(fy, image, position, channel, inside, y_image, y_channel, y_position, ACC)
    weight = tl.load(w + channel, mask=channel < channels, other=0.0)[None, :]
    unit_x, _ = _inverse_lengths(x)
    unit_y, _ = _inverse_lengths(y)
    difference = x * unit_x[:, None] - y * unit_y[:, None]
    distances = tl.sum(weight * (difference * difference), axis=1)
    tl.store(sums + program, tl.sum(distances))


@triton.jit
def _backward_kernel(
    ddistances,
    fx,
    fy,
    w,
    dfx,
    dfy,
    channels,
    positions,
    blocks,
    d_stride,
    x_image,
    x_channel,
    x_position,
    y_image,
    y_channel,
    y_position,
    ACC: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    program = tl.program_id(0)
    image = program // blocks
    position = program % blocks * POSITIONS + tl.arange(0, POSITIONS)
    channel = tl.arange(0, CHANNELS)
    inside = (position < positions)[:, None] & (channel < channels)[None, :]
    x = _load(fx, image, position, channel, inside, x_image, x_channel, x_position, ACC)
    y = _load(fy, image, position, channel, inside, y_image, y_channel, y_position, ACC)
    weight = tl.load(w + channel, mask=channel < channels, other=0.0)[None, :]
    d = tl.load(ddistances + image.to(tl.int64) * d_stride) / positions
    unit_x, inverse_x = _inverse_lengths(x)
    unit_y, inverse_y = _inverse_lengths(y)
    # With unit vectors a and b and u = 2 d w (a - b), d the gradient of a position's distance:
    # dx = (u - (u a) x / |x|) / (|x| + epsilon) and dy = -(u - (u b) y / |y|) / (|y| + epsilon).
    a = x * unit_x[:, None]
    b = y * unit_y[:, None]
    u = 2 * d * weight * (a - b)
    along_x = tl.sum(u * a, axis=1) * inverse_x
    along_y = tl.sum(u * b, axis=1) * inverse_y
    dx = unit_x[:, None] * (u - along_x[:, None] * x)
    dy = unit_y[:, None] * (along_y[:, None] * y - u)
    row = image.to(tl.int64) * positions + position
    to = row[:, None] * channels + channel[None, :]
    tl.store(dfx + to, dx.to(dfx.dtype.element_ty), mask=inside)
    tl.store(dfy + to, dy.to(dfy.dtype.element_ty), mask=inside)


def forward(fx: Tensor, fy: Tensor, w: Tensor) -> Tensor:
    x, y, w = _arguments(fx, fy, w)
    positions, constants = x.shape[2], _constants(fx)
    sums = w.new_empty(x.shape[0], triton.cdiv(positions, constants["POSITIONS"]))
    if sums.numel():
        with on_device_of(fx):
            _forward_kernel[(sums.numel(),)](
                *(x, y, w, sums, *x.shape[1:], sums.shape[1]),
                *(*x.stride(), *y.stride()),
                **constants,
            )
    return sums.sum(1) / positions


def backward(ddistances: Tensor, fx: Tensor, fy: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    x, y, w = _arguments(fx, fy, w)
    positions, constants = x.shape[2], _constants(fx)
    d = ddistances.expand(x.shape[0])
    dfx, dfy = (torch.empty_like(f, memory_format=torch.channels_last) for f in (fx, fy))
    blocks = triton.cdiv(positions, constants["POSITIONS"])
    if dfx.numel():
        with on_device_of(fx):
            _backward_kernel[(x.shape[0] * blocks,)](
                *(d, x, y, w, dfx, dfy, *x.shape[1:], blocks),
                *(*d.stride(), *x.stride(), *y.stride()),
                **constants,
            )
    return dfx, dfy


def _arguments(fx: Tensor, fy: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The maps as ``[N, C, H * W]``, views where they are dense; sizes that do not fit raise."""
    return fx.flatten(2), fy.expand_as(fx).flatten(2), w.expand(fx.shape[1]).contiguous()


def _constants(maps: Tensor) -> dict[str, Any]:
    channels = triton.next_power_of_2(max(1, maps.shape[1]))
    positions = max(1, ELEMENTS // channels)
    return {
        "ACC": triton_accumulator(maps.dtype),
        "POSITIONS": positions,
        "CHANNELS": channels,
        "num_warps": min(16, positions * channels // 1024),
        # Fused, x * unit_x - y * unit_y is not 0 where both products are the same.
        **ROUNDING,
    }
