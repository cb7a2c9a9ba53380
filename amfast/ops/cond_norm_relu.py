"""Conditional batch norm and relu with folded statistics: relu(x * scale + shift)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from amfast.ops._checks import check_affine, check_impl, check_map
from amfast.ops._library import define_gradient, define_op, forbid_second_derivative


def cond_norm_relu(
    x: Tensor, scale: Tensor, shift: Tensor, *, impl: Literal["auto", "ref"] = "auto"
) -> Tensor:
    """relu(x * scale + shift), with a scale and a shift for every image and channel.

    This is BigGAN's conditional batch norm (Brock et al., "Large Scale GAN Training", appendix B)
    in evaluation mode, its statistics folded into scale and shift, and the relu that follows it.
    Only ``x``, ``scale`` and ``shift`` are kept for the backward.

    Args:
        x: ``[N, C, H, W]``, float32, float64, bfloat16 or float16, in any memory format; any size
            may be 0.
        scale, shift: ``[N, C]``, float64 for float64 ``x`` and float32 otherwise.
        impl: ``"auto"`` lets PyTorch's dispatcher choose the kernel; ``"ref"`` runs
            ``cond_norm_relu_ref``, which is differentiable any number of times.

    Returns:
        ``[N, C, H, W]`` in the dtype of ``x``, channels_last. The arithmetic runs in the dtype of
        ``scale`` and is rounded once. The gradients of ``scale`` and ``shift`` are sums over H and
        W in that dtype or wider.

    Raises:
        UsageError: wrong rank, size, dtype or device of an argument, or an unknown ``impl``.
    """
    check_impl(impl)
    check_map("x", x)
    check_affine(scale, shift, x, channels=x.shape[1])
    if impl == "ref":
        return cond_norm_relu_ref(x, scale, shift)
    y: Tensor = _FORWARD(x, scale, shift)
    return y


def cond_norm_relu_ref(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """The specification of ``cond_norm_relu``, in plain PyTorch."""
    y = (x.to(scale.dtype) * scale[..., None, None] + shift[..., None, None]).relu()
    return y.to(x.dtype).contiguous(memory_format=torch.channels_last)


def backward_ref(
    dy: Tensor, x: Tensor, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x ``[N, C, H, W]``, scale and shift ``[N, C]``."""
    wide = x.to(scale.dtype)
    blocked = wide * scale[..., None, None] + shift[..., None, None] <= 0
    d = dy.to(scale.dtype).masked_fill(blocked, 0)
    dx = (d * scale[..., None, None]).to(x.dtype)
    return (
        dx.contiguous(memory_format=torch.channels_last),
        (d * wide).sum((2, 3)),
        d.sum((2, 3)),
    )


def _forward_fake(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


def _backward_fake(
    dy: Tensor, x: Tensor, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    dx = torch.empty_like(x, memory_format=torch.channels_last)
    return dx, scale.new_empty(scale.shape), shift.new_empty(shift.shape)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    gradients: tuple[Tensor, Tensor, Tensor] = _BACKWARD(dy, *ctx.saved_tensors)
    return gradients


_FORWARD = define_op(
    "cond_norm_relu(Tensor x, Tensor scale, Tensor shift) -> Tensor",
    reference=cond_norm_relu_ref,
    fake=_forward_fake,
    triton="cond_norm_relu.forward",
)
_BACKWARD = define_op(
    "cond_norm_relu_backward(Tensor dy, Tensor x, Tensor scale, Tensor shift)"
    " -> (Tensor dx, Tensor dscale, Tensor dshift)",
    reference=backward_ref,
    fake=_backward_fake,
    triton="cond_norm_relu.backward",
)
define_gradient(_FORWARD, _backward, setup_context=_setup_context)
forbid_second_derivative(_BACKWARD, public="amfast.ops.cond_norm_relu")
