"""What every benchmark shares: one way to validate first and time second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

Timed = Callable[..., None]


@pytest.fixture
def validated(benchmark: Any) -> Timed:
    """``validated(run, wanted, rtol, atol, bytes_moved)``: time ``run`` only if its results agree.

    ``run()`` returns tensors, compared one by one with those in ``wanted``. ``bytes_moved`` is what
    the op has to read and write at least; GB/s goes into the report's extra information.
    """

    def measure(
        run: Callable[[], Sequence[Tensor]],
        *,
        wanted: Sequence[Tensor],
        rtol: float,
        atol: float,
        bytes_moved: int,
    ) -> None:
        for actual, expected in zip(run(), wanted, strict=True):
            torch.testing.assert_close(actual.double(), expected.double(), rtol=rtol, atol=atol)
        benchmark(run)
        if benchmark.stats is not None:  # None under --benchmark-disable
            seconds = benchmark.stats.stats.median
            benchmark.extra_info["GB/s"] = round(bytes_moved / seconds / 1e9, 2)

    return measure
