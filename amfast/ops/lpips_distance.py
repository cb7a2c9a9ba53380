"""LPIPS's distance between two sets of feature maps, for one layer of a network."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from amfast.errors import UsageError
from amfast.ops._checks import (
    accumulator,
    check_impl,
    check_like,
    check_map,
    check_same_device,
    check_tensor,
    dtype_name,
    full_precision,
    has_values,
)
from amfast.ops._library import define_gradient, define_op, forbid_second_derivative

#: Added to every length, as in the lpips package.
EPSILON = 1e-10
_TOGETHER = 4096  # columns of a product that are added up in float32


def lpips_distance(
    fx: Tensor, fy: Tensor, w: Tensor, *, impl: Literal["auto", "ref"] = "auto"
) -> Tensor:
    """The mean over positions of sum_c w[c] * (a[c] - b[c])^2, a and b being unit feature vectors.

    One layer's term of LPIPS (Zhang et al., "The Unreasonable Effectiveness of Deep Features as a
    Perceptual Metric", CVPR 2018, equation 1), with a = fx / (|fx| + 1e-10) over the channels of
    each position, as the lpips package has it. Only ``fx``, ``fy`` and ``w`` are kept for the
    backward.

    Args:
        fx, fy: ``[N, C, H, W]`` of the same shape and dtype: float32, float64, bfloat16 or
            float16, in any memory format. N and C may be 0, H and W not.
        w: ``[C]``, not negative, float64 for float64 maps and float32 otherwise. It is frozen:
            the distance has no gradient with respect to it.
        impl: ``"auto"`` lets PyTorch's dispatcher choose the kernel; ``"ref"`` runs
            ``lpips_distance_ref``, which is differentiable any number of times.

    Returns:
        ``[N]`` from 0 (and exactly 0 for equal maps) to 4 * max(w), in the dtype of ``w``, in
        which all arithmetic runs. A position whose features are all 0 has no direction: it counts
        as a vector of zeros and its gradient is 0. Features whose squares sum to more than that
        dtype holds give NaN. The gradients have the dtype of the maps, and a kernel's are
        channels_last.

    Raises:
        UsageError: wrong rank, size, dtype or device of an argument, a ``w`` that is to get a
            gradient, an unknown ``impl``, or a negative weight. The last is only looked for on
            the CPU: on CUDA the look would stop the host, and the weight is taken as it is.
    """
    check_impl(impl)
    check_map("fx", fx)
    check_like("fy", fy, "fx", fx, list(fx.shape))
    _check_rest("fx", fx, w)
    if impl == "ref":
        return lpips_distance_ref(fx, fy, w)
    distances: Tensor = _FORWARD(fx, fy, w)
    return distances


def lpips_distance_ref(fx: Tensor, fy: Tensor, w: Tensor) -> Tensor:
    """The specification of ``lpips_distance``, in plain PyTorch."""
    difference = _unit(fx, w.dtype) - _unit(fy, w.dtype)
    return (difference.square() * w[:, None, None]).sum(1).mean((1, 2))


def lpips_all_pairs(
    features: Tensor, w: Tensor, *, impl: Literal["auto", "ref"] = "auto"
) -> Tensor:
    """``lpips_distance`` of every two images of a batch, from one product of matrices.

    The unit features, scaled by sqrt(w / (H * W)), are points whose squared distances are those
    of LPIPS; |a - b|^2 = |a|^2 + |b|^2 - 2 ab needs one product for all of them, in parts that are
    added up in float64: on some CPUs a product adds up whole rows in float32 and loses 1e-5. The
    sum cancels where images are alike: in float32 distances are off by up to some 3e-6 * max(w),
    whatever their size, so that smaller ones are noise. Call ``lpips_distance`` where those matter.
    On CUDA products in TF32, which PyTorch has off by default, would make that 1e-3.

    Args:
        features: ``[N, C, H, W]``, float32, float64, bfloat16 or float16, in any memory format.
            N and C may be 0, H and W not.
        w: ``[C]``, not negative, float64 for float64 features and float32 otherwise.
        impl: ``"ref"`` takes the differences themselves, as ``lpips_all_pairs_ref`` does: slower
            and without that error.

    Returns:
        ``[N, N]`` in the dtype of ``w``: symmetric, never negative, its diagonal exactly 0; NaN in
        the row and column of an image with a NaN.

    Raises:
        UsageError: wrong rank, size, dtype or device of an argument, an unknown ``impl``, or a
            negative weight. The last is only looked for on the CPU; on CUDA it gives NaN.
    """
    check_impl(impl)
    check_map("features", features)
    _check_rest("features", features, w)
    if impl == "ref":
        return lpips_all_pairs_ref(features, w)
    positions = features.shape[2] * features.shape[3]
    scale = (w / positions).sqrt()[:, None, None]
    points = (_unit(features, w.dtype) * scale).flatten(1)  # [N, C * H * W]
    products = torch.zeros(len(points), len(points), dtype=torch.float64, device=points.device)
    with full_precision(points.device):
        for part in points.split(_TOGETHER, dim=1):
            products += part @ part.T
    norms = products.diagonal()
    squares = (norms[:, None] + norms - 2 * products).clamp_min(0).triu(1)
    both = squares + squares.T + torch.diag(0 * norms)  # NaN where the features are
    return both.to(w.dtype)


def lpips_all_pairs_ref(features: Tensor, w: Tensor) -> Tensor:
    """The specification of ``lpips_all_pairs``: one image against all, one after the other."""
    rows = [lpips_distance_ref(one.expand_as(features), features, w) for one in features]
    return torch.stack(rows) if rows else w.new_zeros(0, 0)


def _unit(f: Tensor, dtype: torch.dtype) -> Tensor:
    """``f`` over its length along the channels, zeros where there is none: ``[N, C, H, W]``."""
    x = f.to(dtype)
    squares = _sum_of_squares(x)
    nothing = squares == 0
    length = squares.masked_fill(nothing, 1).sqrt()  # sqrt has no finite derivative at 0
    return x.masked_fill(nothing, 0) / (length + EPSILON)


def _sum_of_squares(x: Tensor) -> Tensor:
    """``[N, 1, H, W]``; NaN where it is infinite, which would pass for a vector of zeros."""
    squares = x.square().sum(1, keepdim=True)
    return squares + (squares - squares)


def _backward_ref(ddistances: Tensor, fx: Tensor, fy: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of fx and fy ``[N, C, H, W]``, from the result's, ``[N]``."""
    per_position = ddistances[:, None, None, None] / (fx.shape[2] * fx.shape[3])
    dunit = 2 * per_position * w[:, None, None] * (_unit(fx, w.dtype) - _unit(fy, w.dtype))
    return _backward_of_unit(dunit, fx), _backward_of_unit(-dunit, fy)


def _backward_of_unit(dunit: Tensor, f: Tensor) -> Tensor:
    """The gradient of ``f`` from that of its unit vectors, ``[N, C, H, W]``."""
    x = f.to(dunit.dtype)
    squares = _sum_of_squares(x)
    nothing = squares == 0
    length = squares.masked_fill(nothing, 1).sqrt()
    inverse = (1 / (length + EPSILON)).masked_fill(nothing, 0)
    along = (dunit * (x * inverse)).sum(1, keepdim=True)  # [N, 1, H, W]
    df = inverse * (dunit - along / length * x)
    return df.to(f.dtype).contiguous(memory_format=torch.channels_last)


def _forward_fake(fx: Tensor, fy: Tensor, w: Tensor) -> Tensor:
    return w.new_empty((fx.shape[0],))


def _backward_fake(ddistances: Tensor, fx: Tensor, fy: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    dfx = torch.empty_like(fx, memory_format=torch.channels_last)
    return dfx, torch.empty_like(fy, memory_format=torch.channels_last)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, ddistances: Tensor) -> tuple[Tensor, Tensor, None]:
    dfx, dfy = _BACKWARD(ddistances, *ctx.saved_tensors)
    return dfx, dfy, None


def _check_rest(name: str, maps: Tensor, w: Tensor) -> None:
    """The maps must have positions, and ``w`` must be ``[C]`` in their accumulator's dtype."""
    if maps.shape[2] * maps.shape[3] == 0:
        raise UsageError(
            f"{name} has shape {list(maps.shape)}; H and W must be at least 1, since the distance "
            "is a mean over positions."
        )
    check_tensor("w", w)
    if list(w.shape) != [maps.shape[1]]:
        raise UsageError(
            f"w has shape {list(w.shape)}; beside {name} of shape {list(maps.shape)} it must be "
            f"[{maps.shape[1]}], a weight for every channel."
        )
    if w.dtype != accumulator(maps.dtype):
        raise UsageError(
            f"w is {dtype_name(w.dtype)}; beside {dtype_name(maps.dtype)} maps it must be "
            f"{dtype_name(accumulator(maps.dtype))}."
        )
    check_same_device("w", w, name, maps)
    if w.requires_grad and torch.is_grad_enabled():
        raise UsageError("w requires a gradient, which does not exist here: pass w.detach().")
    if has_values(w) and w.numel():
        least = float(w.detach().min())
        if least < 0:
            raise UsageError(f"w holds the weight {least:g}; none may be negative.")


_FORWARD = define_op(
    "lpips_distance(Tensor fx, Tensor fy, Tensor w) -> Tensor",
    reference=lpips_distance_ref,
    fake=_forward_fake,
    triton="lpips_distance.forward",
)
_BACKWARD = define_op(
    "lpips_distance_backward(Tensor ddistances, Tensor fx, Tensor fy, Tensor w)"
    " -> (Tensor dfx, Tensor dfy)",
    reference=_backward_ref,
    fake=_backward_fake,
    triton="lpips_distance.backward",
)
define_gradient(_FORWARD, _backward, setup_context=_setup_context)
forbid_second_derivative(_BACKWARD, public="amfast.ops.lpips_distance")
