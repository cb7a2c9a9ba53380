"""The end of BigGAN's last block, and the image before its tanh."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from amfast.errors import UsageError
from amfast.ops._checks import accumulator, check_impl, check_like, full_precision
from amfast.ops._library import define_gradient, define_op, forbid_second_derivative
from amfast.ops.cond_norm_relu import backward_ref as norm_relu_backward_ref
from amfast.ops.cond_norm_relu import cond_norm_relu_ref
from amfast.ops.upsample_add_norm_relu import check_maps, sum_2x2, upsample_add


def upsample_add_to_rgb(
    h: Tensor,
    skip: Tensor,
    scale: Tensor,
    shift: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    impl: Literal["auto", "ref"] = "auto",
) -> Tensor:
    """A 3x3 convolution of relu((h + nearest2x(skip)) * scale + shift) to three channels.

    The output norm of BigGAN, unlike those in its blocks, has one scale and shift for all images.
    They, ``weight`` and ``bias`` are frozen: gradients go to ``h`` and ``skip`` alone, and of the
    maps only ``h + nearest2x(skip)`` is kept for the backward.

    Args:
        h: ``[N, C, 2 * H, 2 * W]``, float32, float64, bfloat16 or float16, in any memory format;
            N may be 0.
        skip: ``[N, C, H, W]``, of the dtype and on the device of ``h``.
        scale, shift: ``[C]``, float64 for float64 maps and float32 otherwise.
        weight, bias: ``[3, C, 3, 3]`` and ``[3]``, of the dtype of ``h``.
        impl: ``"auto"`` lets PyTorch's dispatcher choose the kernel; ``"ref"`` runs
            ``upsample_add_to_rgb_ref``, which is differentiable any number of times.

    Returns:
        ``[N, 3, 2 * H, 2 * W]`` in the dtype of ``h``, channels_last. Sums run in the dtype of
        ``scale``.

    Raises:
        UsageError: wrong rank, size, dtype or device of an argument, an argument that is frozen and
            requires a gradient, or an unknown ``impl``.
    """
    check_impl(impl)
    check_maps(h, skip)
    channels = h.shape[1]
    _check_frozen("scale", scale, h, [channels], accumulator(h.dtype))
    _check_frozen("shift", shift, h, [channels], accumulator(h.dtype))
    _check_frozen("weight", weight, h, [3, channels, 3, 3], h.dtype)
    _check_frozen("bias", bias, h, [3], h.dtype)
    if impl == "ref":
        return upsample_add_to_rgb_ref(h, skip, scale, shift, weight, bias)
    rgb: Tensor = _FORWARD(h, skip, scale, shift, weight, bias)[1]
    return rgb


def upsample_add_to_rgb_ref(
    h: Tensor, skip: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    """The specification of ``upsample_add_to_rgb``, in plain PyTorch."""
    return _forward_ref(h, skip, scale, shift, weight, bias)[1]


def _check_frozen(
    name: str, value: Tensor, h: Tensor, shape: list[int], dtype: torch.dtype
) -> None:
    like = h if h.dtype == dtype else h.new_empty((), dtype=dtype).expand(h.shape)
    check_like(name, value, "h", like, shape)
    if value.requires_grad:
        raise UsageError(f"{name} requires a gradient; it is frozen here, so detach it first.")


def _forward_ref(
    h: Tensor, skip: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """The sum, which the backward needs, and the image."""
    added = upsample_add(h, skip)
    rows = (len(added), -1)
    wide = scale.dtype
    activated = cond_norm_relu_ref(added.to(wide), scale.expand(rows), shift.expand(rows))
    if added.numel() == 0:  # which convolutions refuse
        n, _, height, width = added.shape
        rgb = bias.to(wide)[:, None, None].expand(n, 3, height, width) + activated.sum()
    else:
        with full_precision(h.device):
            rgb = F.conv2d(activated, weight.to(wide), bias.to(wide), padding=1)
    return added, rgb.to(h.dtype).contiguous(memory_format=torch.channels_last)


def _backward_ref(
    drgb: Tensor, added: Tensor, scale: Tensor, shift: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of h ``[N, C, 2H, 2W]`` and skip ``[N, C, H, W]``."""
    dactivated = added.to(scale.dtype)
    if added.numel():
        with full_precision(added.device):
            dactivated = F.conv_transpose2d(drgb.to(scale.dtype), weight.to(scale.dtype), padding=1)
    rows = (len(added), -1)
    dh, _, _ = norm_relu_backward_ref(
        dactivated, added.to(scale.dtype), scale.expand(rows), shift.expand(rows)
    )
    dskip = sum_2x2(dh).to(added.dtype)
    return (
        dh.to(added.dtype).contiguous(memory_format=torch.channels_last),
        dskip.contiguous(memory_format=torch.channels_last),
    )


def _forward_fake(
    h: Tensor, skip: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    added = torch.empty_like(h, memory_format=torch.channels_last)
    return added, _empty_map(h, (len(h), 3, *h.shape[2:]))


def _backward_fake(
    drgb: Tensor, added: Tensor, scale: Tensor, shift: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    n, channels, height, width = added.shape
    dskip = _empty_map(added, (n, channels, height // 2, width // 2))
    return torch.empty_like(added, memory_format=torch.channels_last), dskip


def _empty_map(like: Tensor, size: tuple[int, ...]) -> Tensor:
    return torch.empty(
        size, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    _, _, scale, shift, weight, _ = inputs
    ctx.mark_non_differentiable(output[0])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[0], scale, shift, weight)


def _backward(ctx: Any, dsum: None, drgb: Tensor | None) -> tuple[Tensor | None, ...]:
    if drgb is None:
        return (None,) * 6
    dh, dskip = _BACKWARD(drgb, *ctx.saved_tensors)
    return dh, dskip, None, None, None, None


_FORWARD = define_op(
    "upsample_add_to_rgb(Tensor h, Tensor skip, Tensor scale, Tensor shift, Tensor weight,"
    " Tensor bias) -> (Tensor added, Tensor rgb)",
    reference=_forward_ref,
    fake=_forward_fake,
)
_BACKWARD = define_op(
    "upsample_add_to_rgb_backward(Tensor drgb, Tensor added, Tensor scale, Tensor shift,"
    " Tensor weight) -> (Tensor dh, Tensor dskip)",
    reference=_backward_ref,
    fake=_backward_fake,
)
define_gradient(_FORWARD, _backward, setup_context=_setup_context)
forbid_second_derivative(_BACKWARD, public="amfast.ops.upsample_add_to_rgb")
