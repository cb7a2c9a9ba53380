"""The order of the suite, and a seed for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.forks import Forks, forks


@pytest.fixture(autouse=True)
def seed() -> None:
    """A test that draws by torch's own stream draws the same numbers alone and among others."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def amfast_forks() -> Iterator[Forks]:
    """The command, with torch imported once for all that take it from here."""
    with forks() as found:
        yield found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The file that takes longest comes first, so that the others run beside it."""
    items.sort(key=lambda item: item.path.name != "test_kernels.py")
