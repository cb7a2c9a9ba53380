"""Files that are whole or not there at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amfast.errors import RunError
from amfast.text import parse_json


def write_bytes(path: Path, data: bytes) -> None:
    """Write under a temporary name beside ``path``, flush to the disk, rename.

    A reader, or a crash at any moment, sees the old file or the new one. The temporary name is
    fixed, so what a killed process leaves is overwritten by the next attempt; one writer at a time
    (``RunDirectory.lock``). Raises ``RunError`` where the file cannot be written.
    """
    if not path.name:
        raise RunError(f"cannot write {str(path)!r}: it names a directory, not a file")
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        try:
            _write_through(temporary, data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(path.parent)
    except OSError as error:
        raise RunError(f"cannot write {path}: {reason(error)}") from None


def commit_bytes(path: Path, data: bytes) -> None:
    """Write a file that several processes may finish at once: the first one's stays.

    Like ``write_bytes``, under a temporary name that is this process's own. Raises ``RunError``
    where the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")
    try:
        try:
            _write_through(temporary, data)
            _rename_if_new(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(path.parent)
    except OSError as error:
        raise RunError(f"cannot write {path}: {reason(error)}") from None


def _write_through(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _rename_if_new(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)  # unlike a rename, never over a file that is there
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        # A file system without links. A second writer would replace the file by an equal one.
        temporary.replace(path)


def refuse_unwritable(path: Path) -> None:
    """``RunError`` where ``write_bytes`` could not write, which is better known before the work."""
    if not path.name or path.is_dir():
        raise RunError(f"cannot write {str(path)!r}: it names a directory, not a file")
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.touch()
        temporary.unlink()
    except OSError as error:
        raise RunError(f"cannot write {path}: {reason(error)}") from None


def write_directory(path: Path, files: Mapping[str, bytes]) -> None:
    """A new directory with these files in it, which appears whole or not at all.

    Raises ``RunError`` where there is something of its name already, or it cannot be written.
    """
    refuse_existing(path)
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a process that was killed
    try:
        temporary.mkdir()
        for name, data in files.items():
            write_bytes(temporary / name, data)
        temporary.rename(path)
        sync_directory(path.parent)
    except OSError as error:
        raise RunError(f"cannot write {path}: {reason(error)}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_existing(path: Path) -> None:
    """``RunError`` where ``path`` names no file, or there is something of its name already."""
    if not path.name:
        raise RunError(f"cannot write {str(path)!r}: give it a name of its own")
    if os.path.lexists(path):
        raise RunError(f"{path} exists already: choose another name, or remove it first")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write strict JSON: ``ValueError`` for NaN and infinity, which JSON does not have."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_bytes(path: Path) -> bytes:
    """The whole file; ``RunError`` where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"cannot read {path}: {reason(error)}") from None


def read_json(path: Path) -> Any:
    """The value of a JSON file; ``RunError`` where it cannot be read or is none."""
    try:
        return parse_json(read_bytes(path))
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error!r}") from None


def reason(error: OSError) -> str:
    """What the system says went wrong, without the number and the path."""
    return (error.strerror or str(error)).lower()


def sync_directory(path: Path) -> None:
    """Make the names in a directory last; ``OSError`` where the system cannot."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
