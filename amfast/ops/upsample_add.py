"""The end of a BigGAN block: the main path plus the upsampled skip path."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from amfast.errors import UsageError
from amfast.ops._checks import accumulator, check_affine, check_impl, check_like, check_map
from amfast.ops._library import define_gradient, define_op, forbid_second_derivative
from amfast.ops.cond_norm_relu import backward_ref as norm_relu_backward_ref
from amfast.ops.cond_norm_relu import cond_norm_relu_ref


def upsample_add(h: Tensor, skip: Tensor, *, impl: Literal["auto", "ref"] = "auto") -> Tensor:
    """``h + nearest2x(skip)``. Nothing is kept for the backward.

    Args:
        h: ``[N, C, 2 * H, 2 * W]``, float32, float64, bfloat16 or float16, in any memory format.
        skip: ``[N, C, H, W]``, of the dtype and on the device of ``h``.
        impl: ``"auto"`` lets PyTorch's dispatcher choose the kernel; ``"ref"`` runs
            ``upsample_add_ref``, which is differentiable any number of times.

    Returns:
        ``[N, C, 2 * H, 2 * W]`` in the dtype of ``h``, channels_last.

    Raises:
        UsageError: wrong rank, size, dtype or device of an argument, or an unknown ``impl``.
    """
    check_impl(impl)
    _check_maps(h, skip)
    if impl == "ref":
        return upsample_add_ref(h, skip)
    added: Tensor = torch.ops.amfast.upsample_add(h, skip)
    return added


def upsample_add_norm_relu(
    h: Tensor, skip: Tensor, scale: Tensor, shift: Tensor, *, impl: Literal["auto", "ref"] = "auto"
) -> tuple[Tensor, Tensor]:
    """``upsample_add`` and, in the same pass, the next block's first ``cond_norm_relu``.

    Args:
        h, skip: as for ``upsample_add``.
        scale, shift: ``[N, C]``, float64 for float64 maps and float32 otherwise.
        impl: as for ``upsample_add``.

    Returns:
        The sum, which the next block's skip path needs, and relu(sum * scale + shift), both
        ``[N, C, 2 * H, 2 * W]`` in the dtype of ``h``, channels_last. The second is worked out from
        the sum as rounded to that dtype. Only the sum, ``scale`` and ``shift`` are kept for the
        backward.

    Raises:
        UsageError: wrong rank, size, dtype or device of an argument, or an unknown ``impl``.
    """
    check_impl(impl)
    _check_maps(h, skip)
    check_affine(scale, shift, h, channels=h.shape[1])
    if impl == "ref":
        return upsample_add_norm_relu_ref(h, skip, scale, shift)
    added, out = torch.ops.amfast.upsample_add_norm_relu(h, skip, scale, shift)
    return added, out


def upsample_add_ref(h: Tensor, skip: Tensor) -> Tensor:
    """The specification of ``upsample_add``, in plain PyTorch."""
    wide = accumulator(h.dtype)
    spread = skip.to(wide).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    added = (h.to(wide) + spread).to(h.dtype)
    return added.contiguous(memory_format=torch.channels_last)


def upsample_add_norm_relu_ref(
    h: Tensor, skip: Tensor, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor]:
    """The specification of ``upsample_add_norm_relu``, in plain PyTorch."""
    added = upsample_add_ref(h, skip)
    return added, cond_norm_relu_ref(added, scale, shift)


def _check_maps(h: Tensor, skip: Tensor) -> None:
    check_map("h", h)
    check_map("skip", skip)
    n, channels, height, width = h.shape
    if height % 2 or width % 2:
        raise UsageError(
            f"h has shape {list(h.shape)}; its height and width must be even, twice those of skip."
        )
    check_like("skip", skip, "h", h, [n, channels, height // 2, width // 2])


def _sum_2x2(dsum: Tensor) -> Tensor:
    """The gradient of nearest-neighbour upsampling: sums over 2x2 pixels, rounded once."""
    wide = dsum.to(accumulator(dsum.dtype))
    n, channels, height, width = dsum.shape
    squares = wide.reshape(n, channels, height // 2, 2, width // 2, 2)
    return squares.sum((3, 5)).to(dsum.dtype).contiguous(memory_format=torch.channels_last)


def _norm_backward_ref(
    dsum: Tensor | None, dout: Tensor, added: Tensor, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of h ``[N, C, 2H, 2W]``, skip ``[N, C, H, W]``, scale and shift ``[N, C]``.

    ``dsum`` is None where only the second result was used.
    """
    wide = added.to(scale.dtype)
    through, dscale, dshift = norm_relu_backward_ref(dout.to(scale.dtype), wide, scale, shift)
    dh = through if dsum is None else through + dsum.to(scale.dtype)
    dskip = _sum_2x2(dh).to(added.dtype)
    dh = dh.to(added.dtype).contiguous(memory_format=torch.channels_last)
    return dh, dskip.contiguous(memory_format=torch.channels_last), dscale, dshift


def _half_size(like: Tensor) -> Tensor:
    n, channels, height, width = like.shape
    return torch.empty(
        (n, channels, height // 2, width // 2),
        dtype=like.dtype,
        device=like.device,
        memory_format=torch.channels_last,
    )


def _add_fake(h: Tensor, skip: Tensor) -> Tensor:
    return torch.empty_like(h, memory_format=torch.channels_last)


def _norm_fake(h: Tensor, skip: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    return _add_fake(h, skip), _add_fake(h, skip)


def _norm_backward_fake(
    dsum: Tensor | None, dout: Tensor, added: Tensor, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dh = torch.empty_like(added, memory_format=torch.channels_last)
    return dh, _half_size(added), scale.new_empty(scale.shape), shift.new_empty(shift.shape)


def _add_backward(ctx: Any, dsum: Tensor) -> tuple[Tensor, Tensor]:
    return dsum, torch.ops.amfast.upsample_add_backward(dsum)


def _norm_setup_context(
    ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor], output: tuple[Tensor, Tensor]
) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[0], inputs[2], inputs[3])


def _norm_backward(
    ctx: Any, dsum: Tensor | None, dout: Tensor | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    if dout is not None:
        gradients: tuple[Tensor, Tensor, Tensor, Tensor] = (
            torch.ops.amfast.upsample_add_norm_relu_backward(dsum, dout, *ctx.saved_tensors)
        )
        return gradients
    if dsum is not None:
        return *_add_backward(ctx, dsum), None, None
    return None, None, None, None


_ADD = define_op(
    "upsample_add(Tensor h, Tensor skip) -> Tensor", reference=upsample_add_ref, fake=_add_fake
)
_ADD_BACKWARD = define_op(
    "upsample_add_backward(Tensor dsum) -> Tensor",
    reference=_sum_2x2,
    fake=_half_size,
)
_NORM = define_op(
    "upsample_add_norm_relu(Tensor h, Tensor skip, Tensor scale, Tensor shift)"
    " -> (Tensor added, Tensor out)",
    reference=upsample_add_norm_relu_ref,
    fake=_norm_fake,
)
_NORM_BACKWARD = define_op(
    "upsample_add_norm_relu_backward(Tensor? dsum, Tensor dout, Tensor added, Tensor scale,"
    " Tensor shift) -> (Tensor dh, Tensor dskip, Tensor dscale, Tensor dshift)",
    reference=_norm_backward_ref,
    fake=_norm_backward_fake,
)
define_gradient(_ADD, _add_backward)
define_gradient(_NORM, _norm_backward, setup_context=_norm_setup_context)
forbid_second_derivative(_ADD_BACKWARD, public="amfast.ops.upsample_add")
forbid_second_derivative(_NORM_BACKWARD, public="amfast.ops.upsample_add_norm_relu")
