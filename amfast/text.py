"""Text that others chose, such as the names of classes and what went wrong in a library."""

from __future__ import annotations


def printable(text: str) -> str:
    """Text with the control characters of a hostile name shown, not obeyed."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def first_line(error: BaseException) -> str:
    """What an error says, without the advice and traces that follow; its type where it is mute."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
