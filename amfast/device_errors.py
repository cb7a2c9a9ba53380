"""What went wrong on a device, told from what torch raises."""

from __future__ import annotations

import torch

#: What CUDA says of errors after which every later call of the process fails too (cudaError 214,
#: 220, 700-719, 999), or of a device that is gone (46, 100), and what cuBLAS and cuDNN call them.
_DEVICE_ERRORS = (
    "uncorrectable ECC error",
    "uncorrectable NVLink error",
    "illegal memory access",
    "the launch timed out",
    "context is destroyed",
    "device-side assert triggered",
    "hardware stack error",
    "illegal instruction",
    "misaligned address",
    "operation not supported on global/shared address space",
    "invalid program counter",
    "unspecified launch failure",
    "unknown error",
    "busy or unavailable",
    "no CUDA-capable device is detected",
    "CUBLAS_STATUS_EXECUTION_FAILED",
    "CUDNN_STATUS_EXECUTION_FAILED",
)


def is_device_error(error: BaseException) -> bool:
    """Whether only a fresh process can use the device again, or none can.

    A kernel that faults takes CUDA's context with it: from then on every call of the process fails,
    and memory, streams and results on the device are lost. So nothing can be tried again here, and
    the same work may well succeed in another process. The error comes late, at some call that waits
    for the device.

    Judged by what CUDA says, because the type does not tell: ``torch.AcceleratorError`` is also a
    refused launch or a spoilt recording, after which the device is as good as before, and Triton,
    cuBLAS and cuDNN raise a bare ``RuntimeError``. Running out of memory poisons nothing
    (``out_of_memory``).
    """
    if not isinstance(error, RuntimeError) or isinstance(error, torch.OutOfMemoryError):
        return False
    said = str(error)
    known = any(name in said for name in ("CUDA", "CUBLAS", "CUDNN"))
    return known and any(phrase in said for phrase in _DEVICE_ERRORS)


def out_of_memory(error: BaseException) -> bool:
    """Whether torch found too little memory, on an accelerator or for the CPU, or Python did.

    CUDA itself says so where torch's allocator was not asked: for a kernel's code, a workspace.
    """
    if not isinstance(error, RuntimeError):
        return isinstance(error, MemoryError)
    if isinstance(error, torch.OutOfMemoryError):
        return True
    said = (
        *("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED"),
        *("CUDA error: out of memory", "Triton Error [CUDA]: out of memory"),
    )
    return any(phrase in str(error) for phrase in said)
