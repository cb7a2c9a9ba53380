"""What was computed of a real set, kept under the content that it was computed of."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from amfast.errors import RunError, UsageError
from amfast.images.folder import ImageFolder
from amfast.images.vetting import Skipped
from amfast.runs.files import reason
from amfast.runs.lock import locked
from amfast.runs.tensor_file import read_tensors, write_tensors

_KIND = "amfast-statistics"
_HEADER = ("format", "format_version", "checksum")  # the file's own
#: Part of every content hash: another one when images are cut, resized or chosen in another way.
_PREPARATION = "centre square, bilinear, version 1"
_CHUNK = 2**20


@dataclass(frozen=True)
class Statistics:
    """Tensors by name, on the CPU once they were kept, with what there is to say of them."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def content_hash(folder: ImageFolder, size: int) -> str:
    """A SHA-256, in hex, of what a loader gives for these files at this size.

    It is over the files' bytes and classes in their order, not over names, dates or the backend
    that will decode them. Reads all of them; one that cannot be read counts as such.
    """
    digest = hashlib.sha256(f"{_PREPARATION}, {size} px, {len(folder)} files\n".encode())
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        hashes = pool.map(_file_hash, (file.path for file in folder.files))
        for file, found in zip(folder.files, hashes, strict=True):
            digest.update(f"{file.class_id} {found}\n".encode())
    return digest.hexdigest()


def cached(
    key: str,
    compute: Callable[[], Statistics],
    *,
    on_note: Callable[[str], None] = lambda note: None,
) -> Statistics:
    """The statistics kept under ``key``; where there are none, ``compute``'s, which are kept.

    ``key`` is all that they depend on: a ``content_hash`` and, joined by ``-``, the fingerprint of
    the network and the like. A file that is damaged is computed and written again, and where none
    can be written the statistics are returned all the same; ``on_note`` hears of either, once.
    Raises ``UsageError`` for a key with other characters than ``a-z``, ``0-9``, ``.`` and ``-``,
    and whatever ``compute`` raises.
    """
    place = path(key)
    if place.exists():
        try:
            tensors, metadata = read_tensors(place, _KIND)
            return Statistics(tensors, {k: v for k, v in metadata.items() if k not in _HEADER})
        except RunError as error:
            on_note(f"computing the statistics of a real set again: {error}")
    found = compute()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with locked(place.parent / "lock"):
            write_tensors(place, _KIND, found.tensors, found.metadata)
    except (RunError, OSError) as error:
        said = reason(error) if isinstance(error, OSError) else error
        on_note(f"the statistics of a real set are not kept in {place.parent}: {said}")
    return found


def path(key: str) -> Path:
    """Where the statistics of this key are, or will be; ``UsageError`` as ``cached``."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,199}", key):
        raise UsageError(f"{key!r} cannot name statistics: use a-z, 0-9, . and -")
    from amfast.weights import store  # its HTTP libraries take a tenth of a second to import

    return store.home() / "statistics" / f"{key}.safetensors"


def skipped_to_text(skipped: Sequence[Skipped], folder: ImageFolder) -> str:
    """The files of a folder that were left out, as metadata can hold them.

    By their places in its order, since the same content may lie under another name the next time.
    """
    places = {file.path: place for place, file in enumerate(folder.files)}
    return json.dumps([[places[found.path], found.reason] for found in skipped])


def skipped_from_text(text: str, folder: ImageFolder) -> list[Skipped]:
    """What ``skipped_to_text`` was given, in a folder of the same content."""
    return [Skipped(folder.files[place].path, why) for place, why in json.loads(text)]


def _file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while data := file.read(_CHUNK):
                digest.update(data)
    except OSError:
        return "cannot be read"
    return digest.hexdigest()
