"""``resize_to_classifier`` in Triton: a program makes a stretch of an image's pixels.

Positions are whole numbers, in units of 1 / (2 * image * result) of an image's side, as in
csrc/common/resize.h.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import torch
import triton
import triton.language as tl
from torch import Tensor

from amfast.ops.triton._launch import ROUNDING, on_device_of, triton_accumulator

NEAREST, BILINEAR, ANTIALIAS = (tl.constexpr(mode) for mode in range(3))
MODES = {"nearest": NEAREST, "bilinear": BILINEAR, "bilinear_antialias": ANTIALIAS}
#: Pixels of a program.
PIXELS = 256


@triton.jit
def _within(centre, reach, step, count):
    """The first k in [0, count) with |(2k + 1) * step - centre| < reach, and one past the last."""
    before = centre - reach - step
    begin = tl.where(before < 0, 0, tl.maximum(before, 0) // (2 * step) + 1)
    end = tl.minimum((centre + reach + step - 1) // (2 * step), count)
    return tl.minimum(begin, end), end


@triton.jit
def _nearest(of_result, image, scale):
    return tl.minimum((of_result.to(tl.float32) * scale).to(tl.int32), image - 1)


@triton.jit
def _first_nearest_to(of_image, image, result, scale):
    """The first pixel of the result whose nearest is this one or a later one.

    Rounding moves it by one at most from where exact arithmetic has it.
    """
    exact = (of_image * result + image - 1) // image
    earlier = (exact > 0) & (_nearest(exact - 1, image, scale) >= of_image)
    later = (exact < result) & (_nearest(exact, image, scale) < of_image)
    return tl.minimum(tl.where(earlier, exact - 1, tl.where(later, exact + 1, exact)), result)


@triton.jit
def _sources(of_result, image, result, reach, scale, MODE: tl.constexpr):
    """The pixels of the image that one of the result is made of."""
    if MODE == NEAREST:
        begin = _nearest(of_result, image, scale)
        end = begin + 1
    else:
        begin, end = _within((2 * of_result + 1) * image, reach, result, image)
    return begin, end


@triton.jit
def _results(of_image, image, result, reach, scale, MODE: tl.constexpr):
    """The pixels of the result that one of the image is part of."""
    if MODE == NEAREST:
        begin = _first_nearest_to(of_image, image, result, scale)
        end = _first_nearest_to(of_image + 1, image, result, scale)
        end = tl.where(of_image + 1 == image, result, end)
    else:
        begin, end = _within((2 * of_image + 1) * result, reach, image, result)
    return begin, end


@triton.jit
def _total(of_result, image, result, reach, MODE: tl.constexpr):
    """The sum of the parts of a pixel's sources: two arithmetic series that meet at its centre."""
    if MODE == NEAREST:
        total = 0 * of_result + 1
    else:
        centre = (2 * of_result + 1) * image
        begin, end = _within(centre, reach, result, image)
        middle = (centre + result - 1) // (2 * result)
        left, right = middle - begin, end - middle
        first_left = centre - (2 * begin + 1) * result
        first_right = (2 * middle + 1) * result - centre
        total = (
            (left + right) * reach
            - left * (first_left - (left - 1) * result)
            - right * (first_right + (right - 1) * result)
        )
    return total


@triton.jit
def _part(of_result, of_image, image, result, reach, MODE: tl.constexpr):
    """The part that a pixel of the image has in one of the result, of that one's total."""
    if MODE == NEAREST:
        part = 0 * of_result + 0 * of_image + 1
    else:
        part = reach - tl.abs((2 * of_image + 1) * result - (2 * of_result + 1) * image)
    return part


@triton.jit
def _per_channel(channel, red, green, blue, ACC: tl.constexpr):
    picked = tl.where(channel == 1, tl.full((), green, ACC), tl.full((), blue, ACC))
    return tl.where(channel == 0, tl.full((), red, ACC), picked)[None, :]


@triton.jit
def _decay(x):
    return tl.exp(-2 * tl.abs(x))


@triton.jit
def _rounded(value, dtype: tl.constexpr):
    """By way of float32, as the other kernels do, where float64 becomes a 16-bit number."""
    return value if dtype == tl.float64 else value.to(tl.float32).to(dtype)


@triton.jit
def _forward_kernel(
    x,
    y,
    image_height,
    image_width,
    height,
    width,
    vertical_reach,
    horizontal_reach,
    vertical_scale,
    horizontal_scale,
    FACTORS: tl.constexpr,
    SHIFTS: tl.constexpr,
    PRE_TANH: tl.constexpr,
    MODE: tl.constexpr,
    VERTICAL_TAPS: tl.constexpr,
    HORIZONTAL_TAPS: tl.constexpr,
    ACC: tl.constexpr,
    PIXELS: tl.constexpr,
):
    blocks = tl.cdiv(height * width, PIXELS)
    image = (tl.program_id(0) // blocks).to(tl.int64)
    pixel = tl.program_id(0) % blocks * PIXELS + tl.arange(0, PIXELS)
    row, column = pixel // width, pixel % width
    channel = tl.arange(0, 4)
    there = (pixel < height * width)[:, None] & (channel < 3)[None, :]
    top, bottom = _sources(row, image_height, height, vertical_reach, vertical_scale, MODE)
    left, right = _sources(column, image_width, width, horizontal_reach, horizontal_scale, MODE)
    vertical_total = _total(row, image_height, height, vertical_reach, MODE)
    horizontal_total = _total(column, image_width, width, horizontal_reach, MODE)
    total = tl.zeros((PIXELS, 4), ACC)
    for v in range(VERTICAL_TAPS):
        r = top + v
        line = tl.zeros((PIXELS, 4), ACC)
        for h in range(HORIZONTAL_TAPS):
            s = left + h
            inside = (r < bottom) & (s < right)
            offset = ((image * image_height + r) * image_width + s) * 3
            mask = there & inside[:, None]
            value = tl.load(x + offset[:, None] + channel[None, :], mask=mask, other=0.0).to(ACC)
            if PRE_TANH:
                decay = _decay(value)
                value = tl.where(value < 0, decay - 1, 1 - decay) / (1 + decay)
            part = _part(column, s, image_width, width, horizontal_reach, MODE)
            line += value * tl.where(inside, part, 0).to(ACC)[:, None]
        part = _part(row, r, image_height, height, vertical_reach, MODE)
        total += line * tl.where(r < bottom, part, 0).to(ACC)[:, None]
    total /= (vertical_total.to(ACC) * horizontal_total.to(ACC))[:, None]
    factor = _per_channel(channel, FACTORS[0], FACTORS[1], FACTORS[2], ACC)
    shift = _per_channel(channel, SHIFTS[0], SHIFTS[1], SHIFTS[2], ACC)
    offset = (image * height * width + pixel) * 3
    result = _rounded(total * factor + shift, y.dtype.element_ty)
    tl.store(y + offset[:, None] + channel[None, :], result, mask=there)


@triton.jit
def _totals_kernel(
    totals,
    image_height,
    image_width,
    height,
    width,
    vertical_reach,
    horizontal_reach,
    MODE: tl.constexpr,
    ACC: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """1 / the total of every row and of every column of the result, one after the other."""
    place = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    rows = _total(place, image_height, height, vertical_reach, MODE)
    columns = _total(place - height, image_width, width, horizontal_reach, MODE)
    total = tl.where(place < height, rows, columns)
    tl.store(totals + place, 1 / total.to(ACC), mask=place < height + width)


@triton.jit
def _backward_kernel(
    dy,
    x,
    dx,
    totals,
    image_height,
    image_width,
    height,
    width,
    vertical_reach,
    horizontal_reach,
    vertical_scale,
    horizontal_scale,
    FACTORS: tl.constexpr,
    PRE_TANH: tl.constexpr,
    MODE: tl.constexpr,
    VERTICAL_TAPS: tl.constexpr,
    HORIZONTAL_TAPS: tl.constexpr,
    ACC: tl.constexpr,
    PIXELS: tl.constexpr,
):
    blocks = tl.cdiv(image_height * image_width, PIXELS)
    image = (tl.program_id(0) // blocks).to(tl.int64)
    pixel = tl.program_id(0) % blocks * PIXELS + tl.arange(0, PIXELS)
    row, column = pixel // image_width, pixel % image_width
    channel = tl.arange(0, 4)
    there = (pixel < image_height * image_width)[:, None] & (channel < 3)[None, :]
    top, bottom = _results(row, image_height, height, vertical_reach, vertical_scale, MODE)
    left, right = _results(column, image_width, width, horizontal_reach, horizontal_scale, MODE)
    total = tl.zeros((PIXELS, 4), ACC)
    for v in range(VERTICAL_TAPS):
        i = top + v
        line = tl.zeros((PIXELS, 4), ACC)
        for h in range(HORIZONTAL_TAPS):
            j = left + h
            inside = (i < bottom) & (j < right)
            offset = ((image * height + i) * width + j) * 3
            mask = there & inside[:, None]
            d = tl.load(dy + offset[:, None] + channel[None, :], mask=mask, other=0.0).to(ACC)
            part = _part(j, column, image_width, width, horizontal_reach, MODE).to(ACC)
            line += d * (part * tl.load(totals + height + j, mask=inside, other=0.0))[:, None]
        part = _part(i, row, image_height, height, vertical_reach, MODE).to(ACC)
        total += line * (part * tl.load(totals + i, mask=i < bottom, other=0.0))[:, None]
    total *= _per_channel(channel, FACTORS[0], FACTORS[1], FACTORS[2], ACC)
    offset = (image * image_height * image_width + pixel) * 3
    if PRE_TANH:
        value = tl.load(x + offset[:, None] + channel[None, :], mask=there, other=0.0).to(ACC)
        decay = _decay(value)
        total *= 4 * decay / ((1 + decay) * (1 + decay))
    result = _rounded(total, dx.dtype.element_ty)
    tl.store(dx + offset[:, None] + channel[None, :], result, mask=there)


def forward(
    x: Tensor,
    size: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    mode: str,
    pre_tanh: bool,
    dtype: torch.dtype,
) -> Tensor:
    x = _with_pixels_dense(x)
    y = _new(x, size, dtype)
    image_size = x.shape[2:]
    # Taps of a pixel: whole numbers in an open interval of 2 * reach, at steps of 2 * result.
    reach = _reach(image_size, size, mode)
    taps = [
        1 if mode == "nearest" else min(triton.cdiv(r, result), image)
        for r, image, result in zip(reach, image_size, size, strict=True)
    ]
    if len(x):
        with on_device_of(x):
            _forward_kernel[(_programs(len(x), size),)](
                *(x, y, *image_size, *size, *reach, *_scale(image_size, size)),
                FACTORS=tuple(0.5 / s for s in std),
                SHIFTS=tuple((0.5 - m) / s for m, s in zip(mean, std, strict=True)),
                PRE_TANH=pre_tanh,
                VERTICAL_TAPS=taps[0],
                HORIZONTAL_TAPS=taps[1],
                **_constants(mode, x, y),
            )
    return y


def backward(
    dy: Tensor,
    x: Tensor | None,
    image_size: Sequence[int],
    std: Sequence[float],
    mode: str,
    dtype: torch.dtype,
) -> Tensor:
    dy = _with_pixels_dense(dy)
    dx = _new(dy, image_size, dtype)
    size = dy.shape[2:]
    reach = _reach(image_size, size, mode)
    taps = [
        # Rounding may give a pixel one result more than exact arithmetic does.
        min(triton.cdiv(r, image) + (mode == "nearest"), result)
        for r, image, result in zip(reach, image_size, size, strict=True)
    ]
    if len(dy):
        constants = _constants(mode, dy, dx)
        totals = dy.new_empty(sum(size), dtype=_arithmetic(dy, dx))
        image = dx if x is None else _with_pixels_dense(x)
        with on_device_of(dy):
            _totals_kernel[(triton.cdiv(len(totals), PIXELS),)](
                *(totals, *image_size, *size, *reach), **constants
            )
            _backward_kernel[(_programs(len(dy), image_size),)](
                *(dy, image, dx, totals, *image_size, *size, *reach, *_scale(image_size, size)),
                FACTORS=tuple(0.5 / s for s in std),
                PRE_TANH=x is not None,
                VERTICAL_TAPS=taps[0],
                HORIZONTAL_TAPS=taps[1],
                **constants,
            )
    return dx


def _with_pixels_dense(x: Tensor) -> Tensor:
    if x.dim() != 4 or x.shape[1] != 3:
        raise ValueError("images must be [N, 3, H, W]")
    return x.contiguous(memory_format=torch.channels_last)


def _new(like: Tensor, size: Sequence[int], dtype: torch.dtype) -> Tensor:
    shape = (len(like), 3, *size)
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=torch.channels_last)


def _reach(image_size: Sequence[int], size: Sequence[int], mode: str) -> list[int]:
    """How far a pixel of the image is felt, vertically and horizontally."""
    wide = mode == "bilinear_antialias"
    pairs = zip(image_size, size, strict=True)
    return [2 * (max(image, result) if wide else result) for image, result in pairs]


def _scale(image_size: Sequence[int], size: Sequence[int]) -> list[float]:
    """Of nearest pixels: rounded to float32, because torch's choice is made of it."""
    pairs = zip(image_size, size, strict=True)
    return [float(numpy.float32(image) / numpy.float32(result)) for image, result in pairs]


def _programs(images: int, size: Sequence[int]) -> int:
    programs: int = images * triton.cdiv(size[0] * size[1], PIXELS)
    return programs


def _arithmetic(a: Tensor, b: Tensor) -> torch.dtype:
    return torch.float64 if torch.float64 in (a.dtype, b.dtype) else torch.float32


def _constants(mode: str, a: Tensor, b: Tensor) -> dict[str, object]:
    wide = triton_accumulator(_arithmetic(a, b))
    return {"MODE": MODES[mode], "ACC": wide, "PIXELS": PIXELS, **ROUNDING}
