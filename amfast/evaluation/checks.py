"""What a measurement's numbers may be, in sentences."""

from __future__ import annotations

from amfast.errors import UsageError


def check_whole(name: str, value: object, least: int, most: int) -> None:
    """``UsageError`` unless the option ``name`` is an ``int`` from ``least`` to ``most``."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise UsageError(f"{name} is {value!r}; it must be a whole number from {least} to {most}")


def check_share(name: str, value: object) -> None:
    """``UsageError`` unless the option ``name`` is a number from 0 to 1."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise UsageError(f"{name} is {value!r}; it must be a number from 0 to 1")


def check_seed(seed: object) -> None:
    """``UsageError`` for a seed that not every generator of random numbers takes."""
    check_whole("seed", seed, 0, 2**32 - 1)
