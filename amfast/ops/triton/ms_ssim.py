"""One scale of MS-SSIM in Triton: a lane for every element, the window along rows, then columns.

What lies between the kernels are maps of four values: moments filtered along rows, what gradients
are gathered from, and that gathered along columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from amfast.ops._checks import accumulator
from amfast.ops.triton._launch import ROUNDING, on_device_of, triton_accumulator

LANES = 1024


@triton.jit
def _elements(planes, height, width):
    """Of a map, in 64 bits: in 32, the place of the last of four large maps would overflow."""
    return tl.cast(planes, tl.int64) * height * width


@triton.jit
def _filter_rows_kernel(
    x,
    y,
    offsets,
    maps,
    planes,
    height,
    width,
    ACC: tl.constexpr,
    WINDOW: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The window along rows, of u = x + y, v = x - y and their squares: [4, planes, H, W']."""
    across = width - len(WINDOW) + 1
    size = _elements(planes, height, across)
    lane = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = lane < size
    row = lane // across  # of all planes
    plane = row // height
    offset_x = tl.load(offsets + plane, mask=mask, other=0)
    offset_y = tl.load(offsets + planes + plane, mask=mask, other=0)
    x += row * width + lane % across
    y += row * width + lane % across
    u = tl.zeros((BLOCK,), ACC)
    v = tl.zeros((BLOCK,), ACC)
    uu = tl.zeros((BLOCK,), ACC)
    vv = tl.zeros((BLOCK,), ACC)
    for k in tl.static_range(len(WINDOW)):
        of_x = tl.load(x + k, mask=mask, other=0).to(ACC) - offset_x
        of_y = tl.load(y + k, mask=mask, other=0).to(ACC) - offset_y
        of_u = of_x + of_y
        of_v = of_x - of_y
        weighted_u = of_u * WINDOW[k]
        weighted_v = of_v * WINDOW[k]
        u += weighted_u
        v += weighted_v
        uu += weighted_u * of_u
        vv += weighted_v * of_v
    tl.store(maps + lane, u, mask=mask)
    tl.store(maps + size + lane, v, mask=mask)
    tl.store(maps + 2 * size + lane, uu, mask=mask)
    tl.store(maps + 3 * size + lane, vv, mask=mask)


@triton.jit
def _filter(maps, size, step, top, bottom, mask, ACC: tl.constexpr, WINDOW: tl.constexpr):
    """The window over four maps, ``size`` apart: its taps are ``step`` apart, from ``maps`` on.

    Only the taps from ``top`` up to ``bottom`` lie in the maps.
    """
    u = tl.zeros(mask.shape, ACC)
    v = tl.zeros(mask.shape, ACC)
    uu = tl.zeros(mask.shape, ACC)
    vv = tl.zeros(mask.shape, ACC)
    for k in tl.static_range(len(WINDOW)):
        inside = mask & (k >= top) & (k < bottom)
        u += tl.load(maps, mask=inside, other=0) * WINDOW[k]
        v += tl.load(maps + size, mask=inside, other=0) * WINDOW[k]
        uu += tl.load(maps + 2 * size, mask=inside, other=0) * WINDOW[k]
        vv += tl.load(maps + 3 * size, mask=inside, other=0) * WINDOW[k]
        maps += step
    return u, v, uu, vv


@triton.jit
def _variance(mean, mean_square):
    """Never below 0; NaN stays NaN."""
    difference = mean_square - mean * mean
    return tl.where(difference < 0, 0.0, difference)


@triton.jit
def _ratio(a, b):
    """Never above 1 for a <= b, as it is rounded to nearest; in float32 ``/`` is off by 2 ulp."""
    return tl.div_rn(a, b) if a.dtype == tl.float32 else a / b


@triton.jit
def _positions(planes, down, across, BLOCK: tl.constexpr):
    """This program's lanes of a map [planes, H', W']: plane, lane, the map's size, and a mask."""
    lane = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    size = _elements(planes, down, across)
    return lane // (down * across), lane, size, lane < size


@triton.jit
def _moments(
    maps,
    offsets,
    planes,
    height,
    across,
    plane,
    lane,
    mask,
    ACC: tl.constexpr,
    WINDOW: tl.constexpr,
):
    """Of u and v at every position: the mean around the offsets, the mean, the variance."""
    at = lane + plane * (len(WINDOW) - 1) * across
    apart = _elements(planes, height, across)
    u, v, uu, vv = _filter(maps + at, apart, across, 0, len(WINDOW), mask, ACC, WINDOW)
    offset_x = tl.load(offsets + plane, mask=mask, other=0)
    offset_y = tl.load(offsets + planes + plane, mask=mask, other=0)
    mean_u = u + (offset_x + offset_y)
    mean_v = v + (offset_x - offset_y)
    return u, v, mean_u, mean_v, _variance(u, uu), _variance(v, vv)


@triton.jit
def _similarity_kernel(
    maps,
    offsets,
    similarity,
    planes,
    height,
    across,
    ACC: tl.constexpr,
    WINDOW: tl.constexpr,
    TWICE_C1: tl.constexpr,
    TWICE_C2: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Luminance * contrast and contrast at every position: [2, planes, H', W']."""
    plane, lane, size, mask = _positions(planes, height - len(WINDOW) + 1, across, BLOCK)
    _, _, mean_u, mean_v, var_u, var_v = _moments(
        maps, offsets, planes, height, across, plane, lane, mask, ACC, WINDOW
    )
    square_u = mean_u * mean_u
    square_v = mean_v * mean_v
    luminance = _ratio(square_u - square_v + TWICE_C1, square_u + square_v + TWICE_C1)
    contrast = _ratio(var_u - var_v + TWICE_C2, var_u + var_v + TWICE_C2)
    tl.store(similarity + lane, luminance * contrast, mask=mask)
    tl.store(similarity + size + lane, contrast, mask=mask)


@triton.jit
def _gradient_kernel(
    maps,
    offsets,
    dsums,
    gradients,
    planes,
    height,
    across,
    ACC: tl.constexpr,
    WINDOW: tl.constexpr,
    TWICE_C1: tl.constexpr,
    TWICE_C2: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """What gradients of pixels are gathered from: [4, planes, H', W']. See csrc/common/ssim.h."""
    plane, lane, size, mask = _positions(planes, height - len(WINDOW) + 1, across, BLOCK)
    u, v, mean_u, mean_v, var_u, var_v = _moments(
        maps, offsets, planes, height, across, plane, lane, mask, ACC, WINDOW
    )
    dssim = tl.load(dsums + plane, mask=mask, other=0)
    dcontrast = tl.load(dsums + planes + plane, mask=mask, other=0)
    square_u = mean_u * mean_u
    square_v = mean_v * mean_v
    per_means = 1.0 / (square_u + square_v + TWICE_C1)
    per_vars = 1.0 / (var_u + var_v + TWICE_C2)
    d_luminance = dssim * (var_u - var_v + TWICE_C2) * per_vars
    d_contrast = dcontrast + dssim * (square_u - square_v + TWICE_C1) * per_means
    share_u = mean_u * per_means
    share_v = mean_v * per_means
    d_mean_u = d_luminance * 4 * (share_u * mean_v) * share_v
    d_mean_v = d_luminance * -4 * share_v * (share_u * mean_u + TWICE_C1 * per_means)
    d_var_u = d_contrast * 2 * (var_v * per_vars) * per_vars
    d_var_v = d_contrast * -2 * ((var_u + TWICE_C2) * per_vars) * per_vars
    tl.store(gradients + lane, d_mean_u - 2 * d_var_u * u, mask=mask)
    tl.store(gradients + size + lane, d_mean_v - 2 * d_var_v * v, mask=mask)
    tl.store(gradients + 2 * size + lane, d_var_u, mask=mask)
    tl.store(gradients + 3 * size + lane, d_var_v, mask=mask)


@triton.jit
def _gather_columns_kernel(
    gradients,
    maps,
    planes,
    height,
    across,
    ACC: tl.constexpr,
    WINDOW: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The transposed window along columns: [4, planes, H', W'] -> [4, planes, H, W']."""
    down = height - len(WINDOW) + 1
    lane = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    size = _elements(planes, height, across)
    mask = lane < size
    row = lane // across % height
    plane = lane // (height * across)
    at = lane - plane * (height - down) * across
    # Tap k is of the position k rows above.
    apart = _elements(planes, down, across)
    du, dv, duu, dvv = _filter(
        gradients + at, apart, -across, row - down + 1, row + 1, mask, ACC, WINDOW
    )
    tl.store(maps + lane, du, mask=mask)
    tl.store(maps + size + lane, dv, mask=mask)
    tl.store(maps + 2 * size + lane, duu, mask=mask)
    tl.store(maps + 3 * size + lane, dvv, mask=mask)


@triton.jit
def _gather_rows_kernel(
    x,
    y,
    offsets,
    maps,
    dx_half,
    dy_half,
    dx,
    dy,
    planes,
    height,
    width,
    ACC: tl.constexpr,
    WINDOW: tl.constexpr,
    BLOCK: tl.constexpr,
):
    TAPS: tl.constexpr = len(WINDOW)
    across = width - TAPS + 1
    pixel = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = pixel < _elements(planes, height, width)
    column = pixel % width
    row = pixel // width  # of all planes
    plane = row // height
    # Tap k is of the position k columns to the left.
    du, dv, duu, dvv = _filter(
        maps + row * across + column,
        _elements(planes, height, across),
        -1,
        column - across + 1,
        column + 1,
        mask,
        ACC,
        WINDOW,
    )
    offset_x = tl.load(offsets + plane, mask=mask, other=0)
    offset_y = tl.load(offsets + planes + plane, mask=mask, other=0)
    of_x = tl.load(x + pixel, mask=mask, other=0).to(ACC) - offset_x
    of_y = tl.load(y + pixel, mask=mask, other=0).to(ACC) - offset_y
    du += 2 * (of_x + of_y) * duu
    dv += 2 * (of_x - of_y) * dvv
    half_row = plane * ((height + 1) // 2) + (row % height + height % 2) // 2
    half = half_row * ((width + 1) // 2) + (column + width % 2) // 2
    of_dx = du + dv + tl.load(dx_half + half, mask=mask, other=0) * 0.25
    of_dy = du - dv + tl.load(dy_half + half, mask=mask, other=0) * 0.25
    tl.store(dx + pixel, of_dx.to(dx.dtype.element_ty), mask=mask)
    tl.store(dy + pixel, of_dy.to(dy.dtype.element_ty), mask=mask)


def forward(
    x: Tensor, y: Tensor, window: Sequence[float], c1: float, c2: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _check(x, y, window)
    x, y = x.contiguous(), y.contiguous()
    n, c, height, width = x.shape
    down, across = height - len(window) + 1, width - len(window) + 1
    similarity = x.new_empty(2, n, c, down, across, dtype=accumulator(x.dtype))
    if n * c:
        with on_device_of(x):
            offsets, maps = _filtered_rows(x, y, window)
            _similarity_kernel[_grid(similarity[0])](
                *(maps, offsets, similarity, n * c, height, across),
                **_constants(x, window),
                **_of_ratios(c1, c2),
            )
    ssim, contrast = similarity.mean((3, 4))
    return ssim, contrast, _halved(x), _halved(y)


def backward(
    dssim: Tensor,
    dcontrast: Tensor,
    dx_half: Tensor,
    dy_half: Tensor,
    x: Tensor,
    y: Tensor,
    window: Sequence[float],
    c1: float,
    c2: float,
) -> tuple[Tensor, Tensor]:
    _check(x, y, window)
    x, y = x.contiguous(), y.contiguous()
    dx, dy = torch.empty_like(x), torch.empty_like(y)
    n, c, height, width = x.shape
    down, across = height - len(window) + 1, width - len(window) + 1
    if n * c:
        constants = _constants(x, window)
        with on_device_of(x):
            offsets, maps = _filtered_rows(x, y, window)
            dsums = torch.stack([dssim, dcontrast]) / (down * across)
            gradients = maps.new_empty(4, n, c, down, across)
            _gradient_kernel[_grid(gradients[0])](
                *(maps, offsets, dsums, gradients, n * c, height, across),
                **constants,
                **_of_ratios(c1, c2),
            )
            # The moments have been read, and make room for what is gathered.
            _gather_columns_kernel[_grid(maps[0])](
                gradients, maps, n * c, height, across, **constants
            )
            _gather_rows_kernel[_grid(x)](
                *(x, y, offsets, maps, dx_half.contiguous(), dy_half.contiguous(), dx, dy),
                *(n * c, height, width),
                **constants,
            )
    return dx, dy


def _filtered_rows(x: Tensor, y: Tensor, window: Sequence[float]) -> tuple[Tensor, Tensor]:
    """The planes' offsets, and moments filtered along rows."""
    n, c, height, width = x.shape
    offsets = _offsets(x, y)
    maps = offsets.new_empty(4, n, c, height, width - len(window) + 1)
    _filter_rows_kernel[_grid(maps[0])](
        x, y, offsets, maps, n * c, height, width, **_constants(x, window)
    )
    return offsets, maps


def _grid(elements: Tensor) -> tuple[int]:
    return (triton.cdiv(elements.numel(), LANES),)


def _offsets(x: Tensor, y: Tensor) -> Tensor:
    """The mean of every plane, ``[2, N, C]``: variances lose the fewest digits around it."""
    dtype = accumulator(x.dtype)
    return torch.stack([x.mean((2, 3), dtype=dtype), y.mean((2, 3), dtype=dtype)])


def _halved(image: Tensor) -> Tensor:
    odd = (image.shape[2] % 2, image.shape[3] % 2)
    return F.avg_pool2d(image.to(accumulator(image.dtype)), 2, padding=odd)


def _check(x: Tensor, y: Tensor, window: Sequence[float]) -> None:
    if x.dim() != 4 or x.shape != y.shape or x.dtype != y.dtype:
        raise ValueError("x and y must be [N, C, H, W], of one shape and dtype")
    if not 0 < len(window) <= min(11, *x.shape[2:]):
        raise ValueError("window must have from 1 to 11 taps, no more than H or W")


def _constants(x: Tensor, window: Sequence[float]) -> dict[str, object]:
    """Compiled in, since a float that Triton is given at a launch is rounded to fp32."""
    wide = triton_accumulator(x.dtype)
    return {"ACC": wide, "WINDOW": tuple(window), "BLOCK": LANES, **ROUNDING}


def _of_ratios(c1: float, c2: float) -> dict[str, object]:
    return {"TWICE_C1": 2 * c1, "TWICE_C2": 2 * c2}
