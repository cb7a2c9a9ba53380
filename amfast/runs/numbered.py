"""Numbered directories: no two processes ever make the same."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from amfast.errors import RunError
from amfast.runs.files import reason, sync_directory


def slug(name: str) -> str:
    """The last component of a name or path, in characters that are safe in any path."""
    last = re.split(r"[/\\]", name.rstrip("/\\"))[-1].lower()
    return re.sub(r"[^a-z0-9.-]+", "-", last)[:64].strip(".-") or "generator"


def create_numbered(outdir: Path, name: str, fill: Callable[[Path], None]) -> Path:
    """A new directory ``<number>-<name>`` in ``outdir``, itself made where it is missing.

    It appears under its name with what ``fill`` wrote into it. Raises ``RunError`` where it cannot
    be made, and leaves nothing of it behind.
    """
    made: list[Path] = []
    try:
        _make_directories(outdir, made)
        number, claim = _claim_number(outdir)
        try:
            fill(claim)
            path = claim.rename(outdir / f"{number:04d}-{name}")
            sync_directory(outdir)
        except BaseException:
            shutil.rmtree(claim, ignore_errors=True)
            raise
    except RunError:
        _remove(made)
        raise
    except (FileExistsError, NotADirectoryError):
        problem = "a file is in the way"
    except OSError as error:
        problem = reason(error)
    else:
        return path
    _remove(made)
    raise RunError(
        f"cannot make a run directory in {outdir}: {problem}; choose another output directory"
    )


def _make_directories(path: Path, made: list[Path]) -> None:
    """``mkdir`` with parents that notes, in ``made``, which ones were missing, outermost first."""
    missing = [parent for parent in (path, *path.parents) if not parent.exists()]
    for directory in reversed(missing):
        directory.mkdir(exist_ok=True)
        made.append(directory)
    path.mkdir(exist_ok=True)


def _remove(made: Iterable[Path]) -> None:
    for directory in reversed(list(made)):
        with suppress(OSError):  # another process may be using it by now
            directory.rmdir()


def numbered(outdir: Path) -> list[tuple[int, Path]]:
    """The runs in ``outdir`` with their numbers, in no order; none where that is no directory."""
    if not outdir.is_dir():
        return []
    matches = [(re.match(r"(\d{4,})-", path.name), path) for path in outdir.iterdir()]
    return [(int(match[1]), path) for match, path in matches if match]


def _claim_number(outdir: Path) -> tuple[int, Path]:
    """The next free number and a hidden directory that only this process has made.

    Making it is what claims the number; whoever claimed it before has either still the hidden
    directory or, by now, the run.
    """
    number = 1 + max((taken for taken, _ in numbered(outdir)), default=0)
    while True:
        claim = outdir / f".{number:04d}.new"
        try:
            claim.mkdir()
        except FileExistsError:
            number += 1
            continue
        if number not in dict(numbered(outdir)):
            return number, claim
        claim.rmdir()
        number += 1
