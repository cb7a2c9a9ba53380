"""torch set so that the same numbers in the same shapes always give the same numbers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from amfast.errors import UsageError

#: What cuBLAS reads once, when it starts; under any other value its sums have no fixed order.
_CUBLAS, _FIXED = "CUBLAS_WORKSPACE_CONFIG", (":4096:8", ":16:8")


def fix_cublas() -> None:
    """Choose a fixed workspace for cuBLAS where the user has chosen none; of use before it starts.

    Process-wide, so only what starts a run calls it.
    """
    os.environ.setdefault(_CUBLAS, _FIXED[0])


@contextmanager
def deterministic_torch(device: torch.device) -> Iterator[int]:
    """One thread an operator and no algorithm whose order of summation is left to chance.

    Gives the number of threads that torch had, and sets everything back in the end. Raises
    ``UsageError`` on CUDA where cuBLAS is free to vary, and for an operator that torch has in no
    deterministic form.
    """
    if device.type == "cuda" and os.environ.get(_CUBLAS) not in _FIXED:
        raise UsageError(
            f"deterministic on CUDA needs the environment variable {_CUBLAS} to be "
            f"{' or '.join(_FIXED)}, and it is {os.environ.get(_CUBLAS, 'not set')}: set it before "
            "the program starts"
        )
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    memory: Any = torch.utils.deterministic  # mypy does not see the one attribute it has
    mode, fill = torch.get_deterministic_debug_mode(), memory.fill_uninitialized_memory
    try:
        # How an operator is parted among threads can decide how it rounds.
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        memory.fill_uninitialized_memory = False  # every tensor would be written to once more
        torch.backends.cudnn.benchmark = False  # chooses by timing
        yield threads
    except RuntimeError as error:
        operator, found, _ = str(error).partition(" does not have a deterministic implementation")
        if not found:
            raise
        raise UsageError(
            f"torch has no deterministic {operator}, which the generator or the classifier uses on "
            f"{device.type}: leave --deterministic out, or choose another device or classifier"
        ) from error
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(mode)
        memory.fill_uninitialized_memory = fill
        torch.backends.cudnn.benchmark = benchmark
