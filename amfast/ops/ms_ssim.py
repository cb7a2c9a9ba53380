"""Multi-scale structural similarity of pairs of images, and the operator that does one scale."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from amfast.errors import UsageError
from amfast.ops._checks import accumulator, check_impl, check_like, check_map
from amfast.ops._library import define_gradient, define_op, forbid_second_derivative

#: Exponents of the scales, finest first (Wang et al. 2003, section 3.2).
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
K1, K2 = 0.01, 0.03
WINDOW_SIZE, WINDOW_SIGMA = 11, 1.5
#: Beyond these, squares of pixels leave the range of float32.
_MIN_RANGE, _MAX_RANGE = 1e-9, 1e9


def ms_ssim(
    x: Tensor, y: Tensor, *, data_range: float, impl: Literal["auto", "ref"] = "auto"
) -> Tensor:
    """Multi-scale structural similarity of each pair of images: 1 for equal ones, at least 0.

    Wang, Simoncelli and Bovik, "Multi-scale structural similarity for image quality assessment",
    2003: per channel, the product over five scales of the mean contrast-structure term (at the last
    scale that times luminance) to the power of the scale's weight; then the mean over channels.
    Local statistics are weighted by an 11-tap Gaussian of sigma 1.5 at the positions where it lies
    inside the image. Between scales images are halved by the mean of 2x2 pixels; an odd side gets a
    zero in front of it. A term below 0 counts as 0, and passes no gradient. At a scale whose
    smaller side has fewer than 11 pixels the window is as wide as that side, and sigma shrinks in
    proportion, so that images of 160 pixels and less have a value too, down to a single pixel.

    Args:
        x, y: ``[N, C, H, W]``, of one shape and dtype: float32, float64, bfloat16 or float16, in
            any memory format; N may be 0, the other sizes may not.
        data_range: the difference between the largest and the smallest value that a pixel can
            have, from 1e-9 to 1e9. Pixels are meant to lie in ``[0, data_range]``: luminance is
            compared by ratio, so that a shift of both images changes the result.
        impl: ``"auto"`` lets PyTorch's dispatcher choose the kernel; ``"ref"`` runs
            ``ms_ssim_scale_ref``, which is differentiable any number of times.

    Returns:
        ``[N]`` in ``[0, 1]``, float64 for float64 images and float32 otherwise (the arithmetic runs
        in that dtype too, rounded once for the gradients). A pair with a NaN or an infinity gives
        NaN and leaves the others alone. Gradients have the dtype and shape of their image and are
        contiguous.

    Raises:
        UsageError: wrong rank, size, dtype or device of an image, a ``data_range`` out of bounds,
            or an unknown ``impl``.
    """
    check_impl(impl)
    _check_arguments(x, y, data_range)
    scale = ms_ssim_scale_ref if impl == "ref" else _FORWARD
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    powers = []
    for level, weight in enumerate(SCALE_WEIGHTS):
        window = gaussian_window(_window_size(x.shape[2], x.shape[3]))
        ssim, contrast, x, y = scale(x, y, window, c1, c2)
        last = level == len(SCALE_WEIGHTS) - 1
        powers.append(_positive_power(ssim if last else contrast, weight))
    return functools.reduce(torch.mul, powers).mean(1)


def _window_size(height: int, width: int) -> int:
    """``WINDOW_SIZE``, or the shorter side where that is less: a plain number under tracing too."""
    size = WINDOW_SIZE
    while size > height or size > width:
        size -= 1
    return size


def gaussian_window(size: int) -> list[float]:
    """A normalised Gaussian of ``size`` taps, its sigma in the proportion of 1.5 to 11 taps."""
    sigma = size * WINDOW_SIGMA / WINDOW_SIZE
    taps = [math.exp(-(((k - (size - 1) / 2) / sigma) ** 2) / 2) for k in range(size)]
    return [tap / math.fsum(taps) for tap in taps]


def _positive_power(term: Tensor, weight: float) -> Tensor:
    """``relu(term) ** weight``, but with a derivative of 0 at 0, where the power's own is infinite.

    NaN stays NaN.
    """
    none = term <= torch.finfo(term.dtype).tiny
    return term.masked_fill(none, 1).pow(weight).masked_fill(none, 0)


def ms_ssim_scale_ref(
    x: Tensor, y: Tensor, window: Sequence[float], c1: float, c2: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The specification of one scale, in plain PyTorch.

    For x and y ``[N, C, H, W]`` and a window no longer than H or W: the means over positions of
    luminance * contrast-structure and of contrast-structure alone, each ``[N, C]``, and both images
    halved, ``[N, C, ceil(H / 2), ceil(W / 2)]``; all in the accumulator's dtype.

    With u = x + y and v = x - y,

        luminance = (mean(u)^2 - mean(v)^2 + 2 c1) / (mean(u)^2 + mean(v)^2 + 2 c1)
        contrast-structure = (var(u) - var(v) + 2 c2) / (var(u) + var(v) + 2 c2)

    which are the usual expressions in the moments of x and y, from four filtered maps instead of
    five, and which rounding cannot lift above 1.
    """
    x, y = x.to(accumulator(x.dtype)), y.to(accumulator(y.dtype))
    maps = _Maps(x, y, window, c1, c2)
    ssim = (maps.luminance * maps.contrast).mean((2, 3))
    return ssim, maps.contrast.mean((2, 3)), _halved(x), _halved(y)


class _Maps:
    """What both directions of the reference need of one scale; maps are ``[N, C, H', W']``."""

    def __init__(self, x: Tensor, y: Tensor, window: Sequence[float], c1: float, c2: float) -> None:
        # Variances do not change with an offset, and lose the fewest digits when it is the mean.
        offset_x = x.detach().mean((2, 3), keepdim=True)
        offset_y = y.detach().mean((2, 3), keepdim=True)
        dx, dy = x - offset_x, y - offset_y
        self.u, self.v = dx + dy, dx - dy
        self.near_u, self.near_v = _filtered(self.u, window), _filtered(self.v, window)
        self.mean_u = self.near_u + (offset_x + offset_y)
        self.mean_v = self.near_v + (offset_x - offset_y)
        # Rounding can take a variance below 0, and then a ratio beyond 1 or to infinity.
        self.var_u = (_filtered(self.u.square(), window) - self.near_u.square()).clamp(min=0)
        self.var_v = (_filtered(self.v.square(), window) - self.near_v.square()).clamp(min=0)
        square_u, square_v = self.mean_u.square(), self.mean_v.square()
        self.of_means = square_u + square_v + 2 * c1
        self.of_vars = self.var_u + self.var_v + 2 * c2
        self.luminance = (square_u - square_v + 2 * c1) / self.of_means
        self.contrast = (self.var_u - self.var_v + 2 * c2) / self.of_vars


def _filtered(maps: Tensor, window: Sequence[float]) -> Tensor:
    """The window along both axes, at the positions where it lies inside: ``[N, C, H', W']``.

    In slices rather than a convolution, which a GPU may run in TF32: variances would not survive.
    """
    for axis in (2, 3):
        length = maps.shape[axis] - len(window) + 1
        total = maps.narrow(axis, 0, length) * window[0]
        for k, tap in enumerate(window[1:], start=1):
            total = torch.add(total, maps.narrow(axis, k, length), alpha=tap)
        maps = total
    return maps


def _spread(maps: Tensor, window: Sequence[float]) -> Tensor:
    """The transpose of ``_filtered``: ``[N, C, H', W']`` -> ``[N, C, H, W]``."""
    beside = len(window) - 1
    return _filtered(F.pad(maps, (beside, beside, beside, beside)), window[::-1])


def _halved(maps: Tensor) -> Tensor:
    odd = (maps.shape[2] % 2, maps.shape[3] % 2)
    return F.avg_pool2d(maps, 2, padding=odd)


def _doubled(dhalf: Tensor, like: Tensor) -> Tensor:
    """The transpose of ``_halved``: each pixel gets a quarter of its parent's gradient."""
    height, width = like.shape[2:]
    spread = dhalf.repeat_interleave(2, 2).repeat_interleave(2, 3) / 4
    return spread[:, :, height % 2 :, width % 2 :]


def _backward_ref(
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
    """Gradients of x and y ``[N, C, H, W]``, from those of all four results."""
    dtype = x.dtype
    x, y = x.to(dssim.dtype), y.to(dssim.dtype)
    maps = _Maps(x, y, window, c1, c2)
    positions = maps.contrast.shape[2] * maps.contrast.shape[3]
    dssim, dcontrast = dssim[..., None, None] / positions, dcontrast[..., None, None] / positions
    d_luminance = dssim * maps.contrast
    d_contrast = dcontrast + dssim * maps.luminance
    share_u, share_v = maps.mean_u / maps.of_means, maps.mean_v / maps.of_means
    d_mean_u = d_luminance * 4 * share_u * share_v * maps.mean_v
    d_mean_v = d_luminance * -4 * share_v * (share_u * maps.mean_u + 2 * c1 / maps.of_means)
    d_var_u = d_contrast * 2 * (maps.var_v / maps.of_vars) / maps.of_vars
    d_var_v = d_contrast * -2 * ((maps.var_u + 2 * c2) / maps.of_vars) / maps.of_vars
    # d var(u) / d u(q) = 2 w(q - p) (u(q) - mean(u)(p)), and the same offset is in both.
    du = _spread(d_mean_u - 2 * d_var_u * maps.near_u, window)
    du = du + 2 * maps.u * _spread(d_var_u, window)
    dv = _spread(d_mean_v - 2 * d_var_v * maps.near_v, window)
    dv = dv + 2 * maps.v * _spread(d_var_v, window)
    return (
        (du + dv + _doubled(dx_half, x)).to(dtype).contiguous(),
        (du - dv + _doubled(dy_half, y)).to(dtype).contiguous(),
    )


def _forward_fake(
    x: Tensor, y: Tensor, window: Sequence[float], c1: float, c2: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = accumulator(x.dtype)
    n, c, height, width = x.shape
    half = (n, c, (height + 1) // 2, (width + 1) // 2)
    return (
        x.new_empty((n, c), dtype=dtype),
        x.new_empty((n, c), dtype=dtype),
        x.new_empty(half, dtype=dtype),
        x.new_empty(half, dtype=dtype),
    )


def _backward_fake(
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
    return x.new_empty(x.shape), y.new_empty(y.shape)


def _setup_context(
    ctx: Any, inputs: tuple[Tensor, Tensor, list[float], float, float], output: object
) -> None:
    x, y, *ctx.constants = inputs
    ctx.save_for_backward(x, y)


def _backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
    dx, dy = _BACKWARD(*gradients, *ctx.saved_tensors, *ctx.constants)
    return dx, dy, None, None, None


def _check_arguments(x: Tensor, y: Tensor, data_range: float) -> None:
    check_map("x", x)
    check_like("y", y, "x", x, list(x.shape))
    if 0 in x.shape[1:]:
        raise UsageError(
            f"x has shape {list(x.shape)}; it must be [N, C, H, W] with at least one channel and "
            "one pixel."
        )
    is_number = isinstance(data_range, (int, float)) and not isinstance(data_range, bool)
    if not is_number or not _MIN_RANGE <= data_range <= _MAX_RANGE:
        raise UsageError(
            f"data_range is {data_range!r}; it must be a number from {_MIN_RANGE:g} to "
            f"{_MAX_RANGE:g}: 1 for pixels in [0, 1], 255 for pixels in [0, 255]."
        )


_FORWARD = define_op(
    "ms_ssim_scale(Tensor x, Tensor y, float[] window, float c1, float c2)"
    " -> (Tensor ssim, Tensor contrast, Tensor x_half, Tensor y_half)",
    reference=ms_ssim_scale_ref,
    fake=_forward_fake,
    triton="ms_ssim.forward",
)
_BACKWARD = define_op(
    "ms_ssim_scale_backward(Tensor dssim, Tensor dcontrast, Tensor dx_half, Tensor dy_half,"
    " Tensor x, Tensor y, float[] window, float c1, float c2) -> (Tensor dx, Tensor dy)",
    reference=_backward_ref,
    fake=_backward_fake,
    triton="ms_ssim.backward",
)
define_gradient(_FORWARD, _backward, setup_context=_setup_context)
forbid_second_derivative(_BACKWARD, public="amfast.ops.ms_ssim")
