"""Every test here runs with uninitialised memory filled with NaN.

AMFAST_TEST_OPS, which tests/test_kernels.py sets, puts other kernels in the CPU's
place: "triton" the Triton kernels, interpreted, or the path of a library.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from amfast.ops import _library


def round_bfloat16_as_a_gpu_does() -> None:
    """Triton's interpreter cuts float32 off to bfloat16, where its compiled kernels round."""
    from triton import language as tl
    from triton.runtime import interpreter

    convert = interpreter._convert_float

    def rounded(values: Any, source: Any, result: Any, mode: Any) -> Any:
        if source == tl.float32 and result == tl.bfloat16:
            nearest = torch.from_numpy(values.copy()).bfloat16()
            return nearest.view(torch.int16).numpy().view("uint16")
        return convert(values, source, result, mode)

    interpreter._convert_float = rounded


def patch_each_module_once() -> None:
    """Triton's interpreter prepares a module anew whenever a kernel calls a function of it, which
    takes it longer than the kernels.
    """
    from triton.runtime import interpreter

    prepared: set[str] = set()

    def call(function: Any, *args: Any, **kwargs: Any) -> Any:
        if function.fn.__module__ not in prepared:
            interpreter._patch_lang(function.fn)
            prepared.add(function.fn.__module__)
        return function.rewrite()(*args, **kwargs)

    interpreter.InterpretedFunction.__call__ = call


INSTEAD = os.environ.get("AMFAST_TEST_OPS")
if INSTEAD == "triton":
    round_bfloat16_as_a_gpu_does()
    patch_each_module_once()
    for op, where in _library.TRITON.items():
        _library.LIBRARY.impl(op, _library.triton_function(where), "CPU")
elif INSTEAD:
    torch.ops.load_library(INSTEAD)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What the references do does not depend on which kernels are in place."""
    if INSTEAD:
        of_references = [
            item
            for item in items
            if isinstance(item, pytest.Function)
            and getattr(item, "callspec", None)
            and item.callspec.params.get("impl") == "ref"
        ]
        config.hook.pytest_deselected(items=of_references)
        items[:] = [item for item in items if item not in set(of_references)]


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Make torch.empty return NaN, so that an element a kernel forgets to write is seen."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)
