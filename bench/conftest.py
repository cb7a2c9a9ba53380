"""What every benchmark's report says: the machine it ran on."""

from __future__ import annotations

from typing import Any

import pytest

from bench import machine


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    """Say in every report which device its figures are of."""
    machine_info.update(machine.facts())
