"""Text that others chose, such as the names of classes and what went wrong in a library."""

from __future__ import annotations

import json
import math
from typing import Any


def printable(text: str) -> str:
    """Text with the control characters of a hostile name shown, not obeyed."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def first_line(error: BaseException) -> str:
    """What an error says, without the advice and traces that follow; its type where it is mute."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def parse_json(data: bytes | str) -> Any:
    """The value of a JSON text; ``ValueError`` for everything that is none.

    ``json.loads`` alone takes NaN and infinity, which JSON does not have, numbers that become
    infinite, and halves of characters, which nothing can write again; and text nested too deeply
    is another kind of error to it.
    """
    try:
        value = json.loads(data, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    json.dumps(value, ensure_ascii=False).encode()
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number of JSON")
    return number
