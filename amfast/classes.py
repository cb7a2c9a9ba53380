"""Turn what a user writes for ``--classes`` into class ids."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from amfast.errors import UsageError

#: The 50 ImageNet classes whose optimised embeddings the paper's authors released.
PRESETS: dict[str, tuple[int, ...]] = {
    "imagenet-50": (
        *(3, 7, 24, 69, 108, 109, 110, 111, 115, 116, 117, 130, 324, 328, 393, 405, 458, 533),
        *(580, 582, 599, 611, 640, 685, 687, 715, 746, 815, 854, 878, 884, 904, 909, 926, 936),
        *(938, 944, 946, 953, 955, 956, 959, 963, 967, 973, 985, 986, 991, 992, 996),
    ),
    "places-16": (3, 49, 59, 97, 182, 189, 193, 195, 218, 251, 265, 266, 270, 278, 312, 327),
}
_MAX_FILE_BYTES = 1 << 20


def select_classes(
    selection: str | int | Sequence[int | str], labels: Sequence[str]
) -> tuple[int, ...]:
    """Class ids in the order given, each once.

    ``selection`` is ``"all"``, or ids, names, ranges ``3-7``, presets and ``@file`` separated by
    commas, or an id, or a sequence of ids and names. A file holds one of these on every line; ``#``
    starts a comment. One with a comma in its name has to be the whole selection. Raises
    ``UsageError`` for anything else, with the nearest names for an unknown one.
    """
    if isinstance(selection, int):
        selection = [selection]
    if not isinstance(selection, Iterable):
        raise UsageError(f"classes should be ids and names, given {selection!r}")
    items: Iterable[int | str] = _split(selection) if isinstance(selection, str) else selection
    ids: dict[int, None] = {}  # a set that keeps the order
    for item in items:
        ids.update(dict.fromkeys(_resolve(item, labels)))
    if not ids:
        raise UsageError("no class was selected: give ids, names, ranges such as 0-3, or all")
    return tuple(ids)


def _split(text: str) -> list[str]:
    if text.startswith("@") and os.path.isfile(text[1:]):  # its name may have a comma in it
        return [text]
    return [part.strip() for part in text.split(",") if part.strip()]


def _resolve(item: int | str, labels: Sequence[str], *, in_file: str = "") -> Iterable[int]:
    where = f" ({in_file})" if in_file else ""
    text = str(item)
    if text == "all":
        return range(len(labels))
    if text in labels:
        return [labels.index(text)]
    if text in PRESETS:
        return [_checked(class_id, labels, f" (preset {text})") for class_id in PRESETS[text]]
    if text.startswith("@") and not in_file:
        return _read_file(Path(text[1:]), labels)
    if re.fullmatch(r"\d{1,9}", text):
        return [_checked(int(text), labels, where)]
    if span := re.fullmatch(r"(\d{1,9})-(\d{1,9})", text):
        first, last = int(span[1]), int(span[2])
        if first > last:
            raise UsageError(f"class range {text!r} is reversed: write {last}-{first}{where}")
        return range(_checked(first, labels, where), _checked(last, labels, where) + 1)
    near = difflib.get_close_matches(text, [*labels, *PRESETS], n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else "'amfast classes' lists the names"
    raise UsageError(f"unknown class {text[:80]!r}{where}: {hint}")


def _checked(class_id: int, labels: Sequence[str], where: str) -> int:
    if class_id >= len(labels):
        raise UsageError(
            f"class {class_id} does not exist: ids run from 0 to {len(labels) - 1}{where}"
        )
    return class_id


def _read_file(path: Path, labels: Sequence[str]) -> Iterable[int]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a null character in it
        problem = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot read the class file {path}: {problem}") from None
    if len(data) > _MAX_FILE_BYTES:
        raise UsageError(f"class file {path} is larger than 1 MiB: it should list one class a line")
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UsageError(f"class file {path} is not text in UTF-8") from None
    for number, line in enumerate(lines, start=1):
        for item in _split(line.partition("#")[0]):
            yield from _resolve(item, labels, in_file=f"{path}, line {number}")
