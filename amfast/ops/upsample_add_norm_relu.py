"""The end of a BigGAN block, main path plus upsampled skip path, and the start of the next."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from amfast.errors import UsageError
from amfast.ops._checks import accumulator, check_affine, check_impl, check_like, check_map
from amfast.ops._library import define_gradient, define_op, forbid_second_derivative
from amfast.ops.cond_norm_relu import backward_ref as norm_relu_backward_ref
from amfast.ops.cond_norm_relu import cond_norm_relu_ref


def upsample_add_norm_relu(
    h: Tensor, skip: Tensor, scale: Tensor, shift: Tensor, *, impl: Literal["auto", "ref"] = "auto"
) -> tuple[Tensor, Tensor]:
    """``h + nearest2x(skip)`` and, in the same pass, the next block's first ``cond_norm_relu``.

    Args:
        h: ``[N, C, 2 * H, 2 * W]``, float32, float64, bfloat16 or float16, in any memory format.
        skip: ``[N, C, H, W]``, of the dtype and on the device of ``h``.
        scale, shift: ``[N, C]``, float64 for float64 maps and float32 otherwise.
        impl: ``"auto"`` lets PyTorch's dispatcher choose the kernel; ``"ref"`` runs
            ``upsample_add_norm_relu_ref``, which is differentiable any number of times.

    Returns:
        The sum, which the next block's skip path needs, and relu(sum * scale + shift), both
        ``[N, C, 2 * H, 2 * W]`` in the dtype of ``h``, channels_last. The second is worked out from
        the sum as rounded to that dtype. Only the sum, ``scale`` and ``shift`` are kept for the
        backward.

    Raises:
        UsageError: wrong rank, size, dtype or device of an argument, or an unknown ``impl``.
    """
    check_impl(impl)
    check_maps(h, skip)
    check_affine(scale, shift, h, channels=h.shape[1])
    if impl == "ref":
        return upsample_add_norm_relu_ref(h, skip, scale, shift)
    added, out = _FORWARD(h, skip, scale, shift)
    return added, out


def upsample_add(h: Tensor, skip: Tensor) -> Tensor:
    """``h + nearest2x(skip)`` alone, in plain PyTorch: no kernel of ours was faster.

    Arguments, errors and the layout of the result are those of ``upsample_add_norm_relu``; nothing
    is kept for the backward, and every derivative is PyTorch's own.
    """
    check_maps(h, skip)
    wide = accumulator(h.dtype)
    if h.numel() == 0:  # which interpolate refuses
        return (h + skip.sum()).contiguous(memory_format=torch.channels_last)
    added = h.to(wide) + F.interpolate(skip.to(wide), scale_factor=2.0)
    return added.to(h.dtype).contiguous(memory_format=torch.channels_last)


def upsample_add_norm_relu_ref(
    h: Tensor, skip: Tensor, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor]:
    """The specification of ``upsample_add_norm_relu``, in plain PyTorch."""
    added = upsample_add(h, skip)
    return added, cond_norm_relu_ref(added, scale, shift)


def check_maps(h: Tensor, skip: Tensor) -> None:
    check_map("h", h)
    check_map("skip", skip)
    n, channels, height, width = h.shape
    if height % 2 or width % 2:
        raise UsageError(
            f"h has shape {list(h.shape)}; its height and width must be even, twice those of skip."
        )
    check_like("skip", skip, "h", h, [n, channels, height // 2, width // 2])


def sum_2x2(dsum: Tensor) -> Tensor:
    """The gradient of nearest-neighbour upsampling: sums over 2x2 pixels, rounded once."""
    wide = dsum.to(accumulator(dsum.dtype))
    n, channels, height, width = dsum.shape
    squares = wide.reshape(n, channels, height // 2, 2, width // 2, 2)
    return squares.sum((3, 5)).to(dsum.dtype).contiguous(memory_format=torch.channels_last)


def _backward_ref(
    dsum: Tensor | None, dout: Tensor, added: Tensor, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of h ``[N, C, 2H, 2W]``, skip ``[N, C, H, W]``, scale and shift ``[N, C]``.

    ``dsum`` is None where only the second result was used.
    """
    wide = added.to(scale.dtype)
    through, dscale, dshift = norm_relu_backward_ref(dout.to(scale.dtype), wide, scale, shift)
    dh = through if dsum is None else through + dsum.to(scale.dtype)
    dskip = sum_2x2(dh).to(added.dtype)
    dh = dh.to(added.dtype).contiguous(memory_format=torch.channels_last)
    return dh, dskip.contiguous(memory_format=torch.channels_last), dscale, dshift


def _forward_fake(h: Tensor, skip: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    added = torch.empty_like(h, memory_format=torch.channels_last)
    return added, torch.empty_like(added)


def _backward_fake(
    dsum: Tensor | None, dout: Tensor, added: Tensor, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dh = torch.empty_like(added, memory_format=torch.channels_last)
    n, channels, height, width = added.shape
    dskip = torch.empty(
        (n, channels, height // 2, width // 2),
        dtype=added.dtype,
        device=added.device,
        memory_format=torch.channels_last,
    )
    return dh, dskip, scale.new_empty(scale.shape), shift.new_empty(shift.shape)


def _setup_context(
    ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor], output: tuple[Tensor, Tensor]
) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[0], inputs[2], inputs[3])


def _backward(
    ctx: Any, dsum: Tensor | None, dout: Tensor | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    if dout is not None:
        gradients: tuple[Tensor, Tensor, Tensor, Tensor] = _BACKWARD(dsum, dout, *ctx.saved_tensors)
        return gradients
    if dsum is not None:
        return dsum, sum_2x2(dsum), None, None
    return None, None, None, None


_FORWARD = define_op(
    "upsample_add_norm_relu(Tensor h, Tensor skip, Tensor scale, Tensor shift)"
    " -> (Tensor added, Tensor out)",
    reference=upsample_add_norm_relu_ref,
    fake=_forward_fake,
    triton="upsample_add_norm_relu.forward",
)
_BACKWARD = define_op(
    "upsample_add_norm_relu_backward(Tensor? dsum, Tensor dout, Tensor added, Tensor scale,"
    " Tensor shift) -> (Tensor dh, Tensor dskip, Tensor dscale, Tensor dshift)",
    reference=_backward_ref,
    fake=_backward_fake,
    triton="upsample_add_norm_relu.backward",
)
define_gradient(_FORWARD, _backward, setup_context=_setup_context)
forbid_second_derivative(_BACKWARD, public="amfast.ops.upsample_add_norm_relu")
