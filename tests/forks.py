"""The real command without the seconds that importing torch takes: forks of a process that has it.

Each fork is a process of its own, with its own files, signals and end.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.command import REPOSITORY, environment


@dataclass
class Fork:
    """A command that runs; one at a time."""

    pid: int
    stdout: Path
    stderr: Path
    _parent: subprocess.Popen[bytes]
    _code: int | None = None

    def wait(self, seconds: float = 120) -> int:
        """Its exit code, or minus the signal that ended it; killed after ``seconds`` without end.

        ``TimeoutError`` with what it said, then.
        """
        assert self._parent.stdout
        if self._code is None:
            ended, _, _ = select.select([self._parent.stdout], [], [], seconds)
            if not ended:
                os.kill(self.pid, signal.SIGKILL)
            self._code = int(self._parent.stdout.readline())
            if not ended:
                raise TimeoutError(f"no end in {seconds} seconds: {self.stderr.read_text()}")
        return self._code

    def kill(self) -> None:
        """End it, where nobody has waited for it yet."""
        if self._code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.wait()


@dataclass
class Forks:
    """What starts them."""

    _parent: subprocess.Popen[bytes]
    _last: Fork | None = None

    def start(self, *arguments: object, cwd: Path, before: str = "") -> Fork:
        """Start ``amfast`` with these arguments; Python code ``before`` runs first, in the fork.

        Its output goes to files beside ``cwd``.
        """
        self.end()
        stdout, stderr = (cwd.with_name(f"{cwd.name}.{name}") for name in ("out", "err"))
        for path in (stdout, stderr):
            path.write_text("")
        request = {
            "arguments": [str(argument) for argument in arguments],
            "files": [str(cwd), str(stdout), str(stderr)],
            "before": before,
        }
        assert self._parent.stdin and self._parent.stdout
        self._parent.stdin.write(json.dumps(request).encode() + b"\n")
        pid = int(self._parent.stdout.readline())
        self._last = Fork(pid, stdout, stderr, self._parent)
        return self._last

    def end(self) -> None:
        """Kill the last one, which a test that failed may have left."""
        if self._last:
            self._last.kill()


@contextmanager
def forks() -> Iterator[Forks]:
    """The process that forks, until the end of the context."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.forks"],
        cwd=REPOSITORY,
        env=environment(measured=False),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,  # what select() sees is then all that there is
    ) as parent:
        assert parent.stdin and parent.stdout
        assert parent.stdout.readline() == b"ready\n"
        found = Forks(parent)
        try:
            yield found
        finally:
            found.end()
            parent.stdin.close()  # ends it


def serve() -> None:
    """For every line of stdin fork; say the fork's process id and, later, its exit code."""
    import amfast.cli  # noqa: F401
    import amfast_command

    signal.signal(signal.SIGINT, amfast_command._leave)  # until the command has a handler
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        # A fork forgets what it was sent before os.fork() returns in it, so it is told later.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        pid = os.fork()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        if pid:
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
