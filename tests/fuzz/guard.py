"""What a reader of hostile bytes may do: read, and refuse. Everything else is written down here.

Python's audit events (PEP 578) are raised below every way of writing a file, starting a process,
opening a connection or running code, and cannot be switched off by what is read.
"""

from __future__ import annotations

import codecs
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

# The json module imports them where a text begins like one of theirs.
for _encoding in ("utf-16-be", "utf-16-le", "utf-32-be", "utf-32-le"):
    codecs.lookup(_encoding)

#: Seconds for one input. Sound ones take milliseconds; a machine may be busy.
SECONDS = 30.0
#: Bytes of address space for one input, beyond what the process has (freed or not).
SPACE = 1 << 30

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
#: Event -> how many of its arguments, from the first, are paths.
_CHANGES = {
    "os.chmod": 1,
    "os.chown": 1,
    "os.link": 2,
    "os.mkdir": 1,
    "os.remove": 1,
    "os.rename": 2,
    "os.rmdir": 1,
    "os.setxattr": 1,
    "os.symlink": 2,
    "os.truncate": 1,
    "os.utime": 1,
}
#: Processes and the network, in which no input has a say.
_STARTS = {
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "socket.connect",
    "socket.getaddrinfo",
    "subprocess.Popen",
}
#: Code; a command imports what it needs, reading a file imports nothing.
_LOADS = {"ctypes.dlopen", "exec", "import", "marshal.loads", "pickle.find_class"}


class Hang(BaseException):
    """An input took longer than ``SECONDS``; no ``except Exception`` of a reader hides it."""


class Breach(AssertionError):
    """An input made its reader do something that no input may."""


_folder: Path | None = None
_runs: set[str] = set()
_seen: list[str] = []
_hooked = False


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if _folder is None:
        return
    if event in _runs:
        _seen.append(f"{event} {arguments[:2]!r}"[:200])
    elif event == "open":
        path, mode, flags = arguments
        opened = flags if isinstance(flags, int) else 0
        # What is opened in the place of a folder is a file without a name, gone with its process.
        if opened & _WRITES and not _inside(path, _folder) and not os.path.isdir(str(path)):
            _seen.append(f"open {path!r} {mode!r}")
    elif count := _CHANGES.get(event):
        # Last comes the folder that a relative path begins in, where it is not the current one.
        at = arguments[-1]
        base = os.readlink(f"/proc/self/fd/{at}") if isinstance(at, int) and at >= 0 else ""
        _seen.extend(f"{event} {p!r}" for p in arguments[:count] if not _inside(p, _folder, base))


def _inside(path: object, folder: Path, base: str = "") -> bool:
    """Whether a path is in the folder; a number is of a file that was opened before."""
    if not isinstance(path, str | bytes | os.PathLike):
        return True
    place = os.path.abspath(os.path.join(base, os.fsdecode(path)))
    return place == os.devnull or Path(place).is_relative_to(folder)


def _alarm(number: int, frame: FrameType | None) -> None:
    raise Hang(f"no answer after {SECONDS:g} seconds")


@contextmanager
def guarded(folder: Path, *, may_import: bool = False) -> Iterator[None]:
    """Within it, ``Breach`` for what goes beyond ``folder``, and ``Hang`` for no end.

    What it allocates beyond ``SPACE`` is refused by the system, as where memory runs out.
    """
    global _folder, _hooked, _runs
    if not _hooked:
        sys.addaudithook(_audit)
        _hooked = True
    _seen.clear()
    _runs = _STARTS if may_import else _STARTS | _LOADS
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = signal.signal(signal.SIGALRM, _alarm)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (used + SPACE, hard))
    _folder = folder.absolute()
    try:
        yield
    finally:
        _folder = None
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if _seen:
        raise Breach("; ".join(_seen))
