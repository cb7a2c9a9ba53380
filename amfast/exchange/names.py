"""Names of classes as they stand in file names: ``003_tigershark``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from amfast.errors import RunError


def plain(label: str) -> str:
    """The letters and digits of a name, in lower case: "Tiger shark" -> "tigershark"."""
    return re.sub(r"[^a-z0-9]+", "", label.lower())


def file_stem(class_id: int, label: str) -> str:
    """What biggan-am calls a class's file: "003_tigershark", of the first of several synonyms."""
    return f"{class_id:03d}_{plain(label.split(',')[0])[:64] or 'class'}"


def class_of(name: str, labels: Sequence[str], where: str) -> int:
    """The class that ``name`` means: "003_tigershark", "tiger shark" or "<tiger-shark>".

    Where ``labels`` are numbers, for want of names, any name goes with a number. Raises
    ``RunError``, beginning with ``where``, for one that is unknown, ambiguous, a bare number, or of
    another class than its number.
    """
    text = name.strip().removeprefix("<").removesuffix(">")
    if numbered := re.fullmatch(r"(\d{1,9})_(.+)", text):
        class_id, word = int(numbered[1]), plain(numbered[2])
        if class_id >= len(labels):
            raise RunError(
                f"{where} is of class {class_id}, which does not exist: "
                f"ids run from 0 to {len(labels) - 1}"
            )
        label = labels[class_id]
        if label != str(class_id) and word not in (*_words(label), plain(file_stem(0, label)[4:])):
            raise RunError(
                f"{where} is of class {class_id}, {numbered[2][:80]!r}, and class {class_id} is "
                f"{label!r} here: name the classifier whose classes are meant, with --classifier"
            )
        return class_id
    if text.isdecimal():
        raise RunError(
            f"{where} is called by a number alone, which may count trials as well as classes: "
            "give it the class's number and name, such as 003_tigershark"
        )
    found = [i for i, label in enumerate(labels) if plain(text) and plain(text) in _words(label)]
    if len(found) == 1:
        return found[0]
    if found:
        raise RunError(
            f"{where} may be of class {' or '.join(map(str, found))}: say which one by its number, "
            f"such as {file_stem(found[0], text)}"
        )
    near = difflib.get_close_matches(text, labels, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else "'amfast classes' lists the names"
    raise RunError(f"{where} is of an unknown class, {text[:80]!r}: {hint}")


def _words(label: str) -> set[str]:
    """A label and, where it lists synonyms, each of them."""
    return {plain(label), *map(plain, label.split(","))}
