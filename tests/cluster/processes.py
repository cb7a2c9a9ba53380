"""The processes of a command, as the system knows them."""

from __future__ import annotations

from pathlib import Path

from tests.command import SMALL

#: A second or two of work for each of two processes, and stages to stop it between.
LONG = (*SMALL, "--steps", "60", "--steps-per-latents", "5")


def below(pid: int, command: str = "") -> list[int]:
    """The processes that descend from ``pid`` and have ``command`` in their command line."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if fields[0] != "Z":
            parents[int(status.parent.name)] = int(fields[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(child for child in found - {pid} if command in command_of(child))


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
