"""Where the ``amfast`` command begins: before torch is imported, which takes seconds.

A module of its own, because importing anything of the package imports torch as well, and Ctrl-C
in there would be lost or end in a traceback.
"""

from __future__ import annotations

import os
import signal


def main() -> None:
    signal.signal(signal.SIGINT, _leave)
    from amfast.cli import main as run

    try:
        run()  # which hears Ctrl-C by itself
    finally:
        # Nothing is left to interrupt, and a handler called while Python ends would be a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _leave(*_: object) -> None:
    os.write(2, b"amfast: interrupted before anything began; nothing was written\n")
    os._exit(130)


if __name__ == "__main__":
    main()
