"""The order of the suite."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The file that takes longest comes first, so that the others run beside it."""
    items.sort(key=lambda item: item.path.name != "test_kernels.py")
