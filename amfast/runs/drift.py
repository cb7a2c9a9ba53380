"""What may differ between a run and the command that goes on with it, and what never may."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

#: Where, how fast and by which versions trials are computed: it changes how numbers are rounded and
#: not what is optimised. So finished trials stay trials of the run.
_MAY_DRIFT = {
    *("device", "dtype", "batch_embeddings", "microbatch", "compile", "deterministic"),
    *("versions.amfast", "versions.torch", "versions.numpy", "versions.python"),
    *("device.type", "device.name", "device.dtype"),
}


@dataclass(frozen=True)
class Change:
    """A field of a run's identity that was ``was`` in the run and is ``now`` asked for."""

    field: str
    was: Any
    now: Any

    @property
    def may_drift(self) -> bool:
        """Whether finished trials stay what they are: trials and classes may become more."""
        if self.field == "trials":
            return bool(self.now > self.was)
        if self.field == "classes":
            return set(self.was) < set(self.now)
        return self.field in _MAY_DRIFT

    def __str__(self) -> str:
        was, now = (shorten(str(value), 80) for value in (self.was, self.now))
        return f"{self.field}: {was} in the run, {now} asked for"

    def to_json(self) -> dict[str, Any]:
        return {"field": self.field, "was": self.was, "now": self.now}


def changes(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[Change]:
    """What differs between two identities, in the order of ``asked``."""
    return [
        Change(name, stored.get(name), asked.get(name))
        for name in {**asked, **stored}
        if stored.get(name) != asked.get(name)
    ]


def refusal(found: Sequence[Change], *, allow_drift: bool) -> str | None:
    """Why a run of these differences is not gone on with; None where it is."""
    fixed = [change.field for change in found if not change.may_drift]
    if not found or (allow_drift and not fixed):
        return None
    said = "; ".join(map(str, found))
    if not fixed:
        return f"{said}; --allow-drift goes on with it all the same, and records that"
    if allow_drift:
        said += (
            f"; --allow-drift cannot help with {', '.join(fixed)}, by which the finished trials "
            "would be those of another run: start one of its own"
        )
    return said
