"""The reference in a Triton kernel's place, where that one cannot be compiled or launched."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from amfast.device_errors import is_device_error, out_of_memory
from amfast.errors import AmfastError
from amfast.text import first_line

#: Every operator whose kernel failed in this process -> the sentence on it.
FAILED: dict[str, str] = {}

_listeners: list[Callable[[str], None]] = []


def with_fallback(
    op: str, kernel: Callable[..., object], reference: Callable[..., object]
) -> Callable[..., object]:
    """``kernel`` until it fails, and ``reference`` from then on, in this call already.

    What it says then, once in a process, goes to ``on_fallback``'s innermost listener, or is a
    ``RuntimeWarning``.
    """

    def serve(*args: object) -> object:
        if op in FAILED:
            return reference(*args)
        try:
            return kernel(*args)
        except Exception as error:
            # Compilers, assemblers, drivers and caches fail with types of all kinds, and whatever
            # it was, the reference either serves or says it better. It helps in neither of these.
            if is_device_error(error) or out_of_memory(error):
                raise
            said = (
                f"Triton's kernel of {op} failed, which leaves its slower reference: "
                f"{first_line(error).rstrip('.')}"
            )
        if FAILED.setdefault(op, said) is said:
            _say(said)
        return reference(*args)

    return serve


@contextmanager
def on_fallback(hear: Callable[[str], None], *, strict: bool = False) -> Iterator[None]:
    """Let ``hear`` know of every operator whose kernel fails in this context.

    ``strict`` raises ``AmfastError`` from that operator instead.
    """
    listener = _refuse if strict else hear
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def _refuse(said: str) -> None:
    refuse_slower_paths([said])


def refuse_slower_paths(said: list[str]) -> None:
    """``AmfastError`` if there are any: what ``strict`` asks for."""
    if said:
        raise AmfastError(
            f"{'; '.join(said)}. --strict takes no slower path: mend that (amfast doctor says what "
            "serves), or leave --strict out"
        )


def _say(said: str) -> None:
    if _listeners:
        _listeners[-1](said)
    else:
        warnings.warn(said, RuntimeWarning, stacklevel=2)
