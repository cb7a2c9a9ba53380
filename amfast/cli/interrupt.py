"""Ctrl-C once, and again."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
_AGAIN = b"amfast: interrupted again and left at once; what was finished is kept\n"
_SHOW_CURSOR = b"\x1b[?25h"


@contextmanager
def interrupts() -> Iterator[None]:
    """The first Ctrl-C is a ``KeyboardInterrupt``, a second one ends the process at once.

    The first may wait for a pass and takes leave in words; an exception in the midst of that would
    end in a traceback. Leaving at once costs no more than a kill does: files are whole or not
    there. Where Ctrl-C is ignored, as in a shell's background, it stays so.
    """
    before = signal.getsignal(signal.SIGINT)
    in_main = threading.current_thread() is threading.main_thread()  # others may set no handler
    if before in (signal.SIG_IGN, None) or not in_main:
        yield
        return
    begun = False

    def interrupt(*_: object) -> None:
        nonlocal begun
        begun = True
        signal.signal(signal.SIGINT, _leave)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        # All is said and done after the first: while Python takes itself down, no handler can run.
        signal.signal(signal.SIGINT, signal.SIG_IGN if begun else before)


def _leave(number: int, frame: FrameType | None) -> None:
    if sys.stderr.isatty():
        os.write(2, _SHOW_CURSOR)  # which the live bar hides
    os.write(2, _AGAIN)
    os._exit(INTERRUPTED)
