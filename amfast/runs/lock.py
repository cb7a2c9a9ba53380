"""One process at a time."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from amfast.errors import RunError
from amfast.runs.files import reason
from amfast.text import parse_json


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``, which names its holder while it is held.

    The system drops the lock with its holder, however that ends: none is ever stale. Raises
    ``RunError`` naming the holder's host and process if there is one.
    """
    descriptor = _acquire(path)
    try:
        yield
    finally:
        os.ftruncate(descriptor, 0)
        os.close(descriptor)


def _acquire(path: Path) -> int:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": now}
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps(holder).encode())
        except BaseException:
            os.close(descriptor)
            raise
    except BlockingIOError:
        raise RunError(
            f"{path.parent} is in use by {_holder(path)}: wait until that has ended, or stop it"
        ) from None
    except OSError as error:
        raise RunError(f"cannot lock {path}: {reason(error)}") from None
    return descriptor


def _holder(path: Path) -> str:
    try:
        holder = parse_json(path.read_bytes())
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, TypeError, KeyError):  # it has just begun or ended, or is no lock
        return "another process"
