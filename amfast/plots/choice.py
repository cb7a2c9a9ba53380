"""The class that a figure is of."""

from __future__ import annotations

from collections.abc import Mapping

from amfast.classes import select_classes
from amfast.errors import UsageError


def pick_class(wanted: str, names: Mapping[int, str]) -> int:
    """The id of one of the classes ``names`` (id -> name), by its name or id.

    Raises ``UsageError`` for a class that is not among them, and for several.
    """
    for class_id, name in names.items():
        if name == wanted:  # as it is, with commas and all
            return class_id
    labels = [names.get(i, str(i)) for i in range(max(names) + 1)]
    chosen = select_classes(wanted, labels)
    if len(chosen) > 1:
        raise UsageError(f"class {wanted!r} is {len(chosen)} classes; the figure is of one")
    if chosen[0] not in names:
        raise UsageError(f"the run has no class {wanted!r}: it has {_listed(names)}")
    return chosen[0]


def _listed(names: Mapping[int, str]) -> str:
    first = [f"{class_id} {name}" for class_id, name in names.items()][:5]
    return ", ".join(first) + (", ..." if len(names) > len(first) else "")
