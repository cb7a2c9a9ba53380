"""What the ops over maps ``[N, C, H, W]`` refuse, in sentences that name the argument."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from amfast.errors import UsageError

FLOAT_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype that sums and per-channel factors have beside maps of ``dtype``."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def check_impl(impl: str) -> None:
    if impl not in ("auto", "ref"):
        raise UsageError(f"impl is {impl!r}; it may be 'auto' or 'ref'.")


def check_tensor(name: str, value: object) -> None:
    """``value`` must be a dense tensor."""
    if not isinstance(value, Tensor):
        raise UsageError(f"{name} is a {type(value).__name__}; it must be a torch.Tensor.")
    if value.layout != torch.strided:
        raise UsageError(f"{name} is sparse; it must be dense: call {name}.to_dense() first.")


def check_float(name: str, value: Tensor) -> None:
    check_tensor(name, value)
    if value.dtype not in FLOAT_DTYPES:
        accepted = ", ".join(dtype_name(dtype) for dtype in FLOAT_DTYPES)
        raise UsageError(f"{name} is {dtype_name(value.dtype)}; it must be one of {accepted}.")


def check_map(name: str, value: Tensor) -> None:
    """``value`` must be ``[N, C, H, W]`` of a floating dtype."""
    check_float(name, value)
    if value.dim() != 4:
        raise UsageError(f"{name} has shape {list(value.shape)}; it must be [N, C, H, W].")


def check_like(name: str, value: Tensor, like_name: str, like: Tensor, shape: list[int]) -> None:
    """``value`` must have this shape, and the dtype and device of ``like``."""
    check_tensor(name, value)
    if list(value.shape) != shape:
        raise UsageError(
            f"{name} has shape {list(value.shape)}; beside {like_name} of shape "
            f"{list(like.shape)} it must be {shape}."
        )
    if value.dtype != like.dtype:
        raise UsageError(
            f"{name} is {dtype_name(value.dtype)}; it must be {dtype_name(like.dtype)}, "
            f"as {like_name} is."
        )
    check_same_device(name, value, like_name, like)


def check_affine(scale: Tensor, shift: Tensor, x: Tensor, *, channels: int) -> None:
    """``scale`` and ``shift`` must be ``[N, channels]`` in the accumulator's dtype of ``x``."""
    for name, value in (("scale", scale), ("shift", shift)):
        check_tensor(name, value)
        if list(value.shape) != [x.shape[0], channels]:
            raise UsageError(
                f"{name} has shape {list(value.shape)}; beside maps of shape {list(x.shape)} "
                f"it must be {[x.shape[0], channels]}, a row for every image."
            )
        if value.dtype != accumulator(x.dtype):
            raise UsageError(
                f"{name} is {dtype_name(value.dtype)}; beside {dtype_name(x.dtype)} maps "
                f"it must be {dtype_name(accumulator(x.dtype))}."
            )
        check_same_device(name, value, "the maps", x)


def check_same_device(name: str, value: Tensor, like_name: str, like: Tensor) -> None:
    if value.device != like.device:
        raise UsageError(
            f"{name} is on {value.device} and {like_name} on {like.device}; "
            "they must be on one device."
        )


def check_pairs(pairs: Tensor, of: str, count: int) -> None:
    """``pairs`` must be ``[P, 2]`` int64, indices of ``count`` things that are called ``of``."""
    check_tensor("pairs", pairs)
    if pairs.dtype != torch.int64:
        raise UsageError(
            f"pairs is {dtype_name(pairs.dtype)}; it must be int64: call pairs.long() first."
        )
    if pairs.dim() != 2 or pairs.shape[1] != 2:
        raise UsageError(
            f"pairs has shape {list(pairs.shape)}; it must be [P, 2], the indices of two {of} each."
        )
    if has_values(pairs) and pairs.numel():
        low, high = (int(bound) for bound in pairs.aminmax())
        if low < 0 or high >= count:
            raise UsageError(
                f"pairs holds {low if low < 0 else high}; there are {count} {of}, counted from 0."
            )


def has_values(value: Tensor) -> bool:
    """Whether the numbers in ``value`` can be looked at without waiting for a device.

    Tracing works on tensors without values: fakes, or tensors that stand for any batch.
    """
    if torch.compiler.is_compiling() or type(value) not in (Tensor, torch.nn.Parameter):
        return False
    wrapped: bool = torch._C._functorch.is_functorch_wrapped_tensor(value)
    return value.device.type == "cpu" and not wrapped


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """No autocast inside: a reference's products run in the dtype that they are written in."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
