"""Where the commands print: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console

stdout = Console()
stderr = Console(stderr=True)


def say(message: str) -> None:
    """One line on stderr, where long ones wrap as the terminal does."""
    stderr.print(message, highlight=False, markup=False, soft_wrap=True)


def complain(message: str) -> None:
    """One plain line on stderr; control characters of a hostile name are shown, not obeyed."""
    shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in message)
    print(f"amfast: {shown}", file=sys.stderr)


def print_json(value: Mapping[str, Any] | list[Any]) -> None:
    """One JSON value on stdout."""
    print(json.dumps(value, allow_nan=False))
