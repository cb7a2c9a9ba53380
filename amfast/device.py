"""Which device and which precision ``auto`` means, and keeping the CPU allocator's pages."""

from __future__ import annotations

import ctypes
import platform

import torch

from amfast.config import DtypeName
from amfast.errors import UsageError

DTYPES: dict[DtypeName, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def resolve_device(name: str | torch.device) -> torch.device:
    """``auto`` is the first CUDA device where there is one, else the CPU.

    Raises ``UsageError`` for a name torch does not know or a device that is not there.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"unknown device {str(name)!r}: use auto, cpu, cuda or cuda:N")
    if device.type == "cpu":
        device = torch.device("cpu")  # torch takes any number with it and means the same
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = device.index or 0
        if index >= count:
            there = (
                f"it has {count}, numbered from 0" if count else "torch sees no CUDA device here"
            )
            raise UsageError(
                f"device {str(name)!r} does not exist: {there}; use --device auto or cpu"
            )
        device = torch.device("cuda", index)
    return device


def resolve_dtype(name: DtypeName, device: torch.device) -> torch.dtype:
    """``auto`` is fp32 on the CPU, bf16 from compute capability 8.0, fp16 before it."""
    if name in DTYPES:
        return DTYPES[name]
    if name != "auto":
        raise UsageError(f"unknown dtype {name!r}: use auto, {', '.join(DTYPES)}")
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16


def keep_freed_memory() -> None:
    """Tell glibc to keep large freed blocks instead of returning them to the kernel.

    A pass allocates and frees the same megabytes in every step; faulting their pages in anew took
    a third of a step's time on two cores. All threads share one arena: the others give their heaps
    of 64 MB back whole. Process-wide, so only the command line calls it.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL("libc.so.6")
        # malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX
        trim_threshold, mmap_threshold, arena_max = -1, -3, -8
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)
        libc.mallopt(arena_max, 1)
