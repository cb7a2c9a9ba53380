"""Text that others chose, such as the names of classes."""

from __future__ import annotations


def printable(text: str) -> str:
    """Text with the control characters of a hostile name shown, not obeyed."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
