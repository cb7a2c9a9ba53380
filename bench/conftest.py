"""What all benchmarks share: how memory is kept, and the machine that their reports name."""

from __future__ import annotations

from typing import Any

import pytest

from amfast.device import keep_freed_memory
from bench import machine


def pytest_configure() -> None:
    """As ``amfast run`` does: otherwise large maps on the CPU measure the kernel's page faults."""
    keep_freed_memory()


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    """Say in every report which device its figures are of."""
    machine_info.update(machine.facts())
