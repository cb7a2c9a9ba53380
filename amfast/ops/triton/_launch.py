"""What the launches of Triton kernels share."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

#: Options of every launch: products and sums are rounded one by one, as the references round them.
ROUNDING = {"enable_fp_fusion": False}


def on_device_of(tensor: Tensor) -> torch.cuda.device_of:
    """The device a kernel starts on: Triton takes the current one, not that of its arguments."""
    return torch.cuda.device_of(tensor)


def triton_accumulator(dtype: torch.dtype) -> tl.dtype:
    """The dtype of sums beside tensors of ``dtype``, as ``amfast.ops._checks.accumulator``."""
    return tl.float64 if dtype == torch.float64 else tl.float32
