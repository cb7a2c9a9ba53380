"""Where the commands print: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from amfast.text import printable as printable

stdout = Console()
stderr = Console(stderr=True)


def cell(text: str) -> str:
    """The same for a table of rich's, which would obey its markup too."""
    return escape(printable(text))


def say(message: str) -> None:
    """One line on stderr, where long ones wrap as the terminal does."""
    stderr.print(printable(message), highlight=False, markup=False, soft_wrap=True)


def complain(message: str) -> None:
    """One plain line on stderr."""
    print(f"amfast: {printable(message)}", file=sys.stderr)


def print_json(value: Mapping[str, Any] | list[Any]) -> None:
    """One JSON value on stdout."""
    print(json.dumps(value, allow_nan=False))
