"""The real command without the seconds that importing torch takes: forks of a process that has it.

Each fork is a process of its own, with its own files, signals and end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.command import REPOSITORY, environment


@dataclass
class Fork:
    """A command that runs; one at a time."""

    pid: int
    stdout: Path
    stderr: Path
    _parent: subprocess.Popen[str]

    def wait(self) -> int:
        """Its exit code, or minus the signal that ended it."""
        assert self._parent.stdout
        return int(self._parent.stdout.readline())


@dataclass
class Forks:
    """What starts them."""

    _parent: subprocess.Popen[str]

    def start(self, *arguments: object, cwd: Path, before: str = "") -> Fork:
        """Start ``amfast`` with these arguments; Python code ``before`` runs first, in the fork.

        Its output goes to files beside ``cwd``.
        """
        stdout, stderr = (cwd.with_name(f"{cwd.name}.{name}") for name in ("out", "err"))
        for path in (stdout, stderr):
            path.write_text("")
        request = {
            "arguments": [str(argument) for argument in arguments],
            "files": [str(cwd), str(stdout), str(stderr)],
            "before": before,
        }
        assert self._parent.stdin and self._parent.stdout
        print(json.dumps(request), file=self._parent.stdin, flush=True)
        return Fork(int(self._parent.stdout.readline()), stdout, stderr, self._parent)


@contextmanager
def forks() -> Iterator[Forks]:
    """The process that forks, until the end of the context."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.forks"],
        cwd=REPOSITORY,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdin and parent.stdout
        assert parent.stdout.readline() == "ready\n"
        yield Forks(parent)
        parent.stdin.close()  # ends it


def serve() -> None:
    """For every line of stdin fork; say the fork's process id and, later, its exit code."""
    import amfast.cli  # noqa: F401
    import amfast_command

    signal.signal(signal.SIGINT, amfast_command._leave)  # until the command has a handler
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if pid := os.fork():
            print(pid, flush=True)
            _, status = os.waitpid(pid, 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        cwd, *outputs = request["files"]
        os.chdir(cwd)
        for descriptor, path in enumerate(outputs, start=1):
            os.dup2(os.open(path, os.O_WRONLY), descriptor)
        sys.argv[1:] = request["arguments"]
        exec(request["before"], {})
        amfast_command.main()


if __name__ == "__main__":
    serve()
