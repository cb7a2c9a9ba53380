"""What every benchmark shares: one way to validate first and time second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from bench import machine

Timed = Callable[..., None]


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    """Say in every report which device its figures are of."""
    machine_info.update(machine.facts())


@pytest.fixture
def validated(benchmark: Any) -> Timed:
    """``validated(run, wanted=..., ...)``: time ``run`` only if its results agree.

    ``run()`` returns tensors, compared one by one with those in ``wanted``. ``bytes_moved`` is what
    the op has to read and write at least; GB/s goes into the report's extra information.
    ``group`` and ``contestant`` say who competes with whom.
    """

    def measure(
        run: Callable[[], Sequence[Tensor]],
        *,
        wanted: Sequence[Tensor],
        rtol: float,
        atol: float,
        bytes_moved: float,
        group: str,
        contestant: str,
    ) -> None:
        results = run()
        for actual, expected in zip(results, wanted, strict=True):
            torch.testing.assert_close(actual.double(), expected.double(), rtol=rtol, atol=atol)

        def timed() -> None:
            run()
            machine.synchronize(results[0].device)

        benchmark.group = group
        benchmark(timed)
        benchmark.extra_info["contestant"] = contestant
        if benchmark.stats is not None:  # None under --benchmark-disable
            benchmark.extra_info["GB/s"] = bytes_moved / benchmark.stats.stats.min / 1e9

    return measure
