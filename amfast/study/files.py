"""Files from elsewhere, which may be anything."""

from __future__ import annotations

from pathlib import Path

from amfast.errors import RunError
from amfast.runs.files import reason


def read_bounded(path: Path, most: int, what: str) -> bytes:
    """A regular file of at most ``most`` bytes; ``RunError`` for anything else."""
    try:
        if not path.is_file():
            there = "it is not a file" if path.exists() else "no such file"
            raise RunError(f"cannot read {path}: {there}; give {what}")
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise RunError(f"cannot read {path}: {reason(error)}") from None
    if len(data) > most:
        raise RunError(f"{path} is larger than {most >> 10} KiB, which {what} never is")
    return data
