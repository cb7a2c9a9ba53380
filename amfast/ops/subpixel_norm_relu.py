"""The end of an upsampling convolution and the conditional batch norm and relu that follow it."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from amfast.errors import UsageError
from amfast.ops._checks import check_affine, check_impl, check_map
from amfast.ops._library import define_gradient, define_op, forbid_second_derivative
from amfast.ops.cond_norm_relu import backward_ref as norm_relu_backward_ref
from amfast.ops.cond_norm_relu import cond_norm_relu_ref


def subpixel_norm_relu(
    x: Tensor, scale: Tensor, shift: Tensor, *, impl: Literal["auto", "ref"] = "auto"
) -> Tensor:
    """Shuffle phases into pixels, then ``cond_norm_relu``, in one pass.

    A 2x2 convolution with padding 1 that computes the four phases of an upsampled map gives ``x``:
    channel ``(2 * p + q) * C + c`` at ``[i + p, j + q]`` is pixel ``[2 * i + p, 2 * j + q]`` of
    channel ``c``. Unlike ``torch.nn.PixelShuffle`` each phase is shifted by itself and phases come
    before channels.

    Args:
        x: ``[N, 4 * C, H + 1, W + 1]``, float32, float64, bfloat16 or float16, in any memory
            format.
        scale, shift: ``[N, C]``, float64 for float64 ``x`` and float32 otherwise.
        impl: ``"auto"`` lets PyTorch's dispatcher choose the kernel; ``"ref"`` runs
            ``subpixel_norm_relu_ref``, which is differentiable any number of times.

    Returns:
        ``[N, C, 2 * H, 2 * W]`` in the dtype of ``x``, channels_last; precision as in
        ``cond_norm_relu``.

    Raises:
        UsageError: wrong rank, size, dtype or device of an argument, or an unknown ``impl``.
    """
    check_impl(impl)
    check_phases(x)
    check_affine(scale, shift, x, channels=x.shape[1] // 4)
    if impl == "ref":
        return subpixel_norm_relu_ref(x, scale, shift)
    y: Tensor = _FORWARD(x, scale, shift)
    return y


def check_phases(x: Tensor) -> None:
    check_map("x", x)
    if x.shape[1] % 4 or x.shape[2] == 0 or x.shape[3] == 0:
        raise UsageError(
            f"x has shape {list(x.shape)}; it must be [N, 4 * C, H + 1, W + 1]: "
            "four phases of a map."
        )


def subpixel_norm_relu_ref(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """The specification of ``subpixel_norm_relu``, in plain PyTorch."""
    return cond_norm_relu_ref(_shuffle(x), scale, shift)


def _shuffle(x: Tensor) -> Tensor:
    """Phases ``[N, 4 * C, H + 1, W + 1]`` -> pixels ``[N, C, 2 * H, 2 * W]``."""
    n, channels, height, width = x.shape
    phases = x.unflatten(1, (4, channels // 4)).unbind(1)
    shown = [
        phase[:, :, p : p + height - 1, q : q + width - 1]
        for phase, (p, q) in zip(phases, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True)
    ]
    pixels = torch.stack(shown, 2).unflatten(2, (2, 2))  # [N, C, p, q, H, W]
    size = (n, channels // 4, 2 * (height - 1), 2 * (width - 1))
    shuffled: Tensor = pixels.permute(0, 1, 4, 2, 5, 3).reshape(size)
    return shuffled


def _unshuffle(pixels: Tensor) -> Tensor:
    """The gradient of ``_shuffle``: pixels -> phases, zero where no pixel comes from."""
    n, channels, height, width = pixels.shape
    phases = pixels.new_zeros(n, 4, channels, height // 2 + 1, width // 2 + 1)
    for p in (0, 1):
        for q in (0, 1):
            shown = phases[:, 2 * p + q, :, p : p + height // 2, q : q + width // 2]
            shown.copy_(pixels[:, :, p::2, q::2])
    return phases.flatten(1, 2)


def _backward_ref(
    dy: Tensor, x: Tensor, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x ``[N, 4 * C, H + 1, W + 1]``, scale and shift ``[N, C]``."""
    dpixels, dscale, dshift = norm_relu_backward_ref(dy, _shuffle(x), scale, shift)
    dx = _unshuffle(dpixels).contiguous(memory_format=torch.channels_last)
    return dx, dscale, dshift


def _forward_fake(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    n, channels, height, width = x.shape
    size = (n, channels // 4, 2 * (height - 1), 2 * (width - 1))
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


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
    "subpixel_norm_relu(Tensor x, Tensor scale, Tensor shift) -> Tensor",
    reference=subpixel_norm_relu_ref,
    fake=_forward_fake,
    triton="subpixel_norm_relu.forward",
)
_BACKWARD = define_op(
    "subpixel_norm_relu_backward(Tensor dy, Tensor x, Tensor scale, Tensor shift)"
    " -> (Tensor dx, Tensor dscale, Tensor dshift)",
    reference=_backward_ref,
    fake=_backward_fake,
    triton="subpixel_norm_relu.backward",
)
define_gradient(_FORWARD, _backward, setup_context=_setup_context)
forbid_second_derivative(_BACKWARD, public="amfast.ops.subpixel_norm_relu")
