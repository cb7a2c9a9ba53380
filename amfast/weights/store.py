"""The weight store: pretrained files fetched once, checked, converted and kept for offline use."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import pooch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from amfast.errors import RunError, WeightsError
from amfast.fingerprint import fingerprint
from amfast.runs.files import reason, sync_directory, write_json
from amfast.runs.lock import locked
from amfast.text import parse_json
from amfast.weights.catalogue import CATALOGUE, Entry, Kind, RemoteFile, find
from amfast.weights.contents import check_contents
from amfast.weights.download import PATIENCE, Patience, Transfer, discard, download
from amfast.weights.files import read_safetensors, read_weights

_FORMAT = {"format": "amfast-weights", "format_version": 1}

State = Literal["absent", "unfinished", "fetched"]

#: Under which option the commands take a file in the store's place; no command takes a metric's.
_OPTIONS: dict[Kind, str] = {
    "generator": "--weights",
    "classifier": "--classifier-weights, or --judge-weights where it judges",
}


@dataclass(frozen=True)
class Status:
    """What the store has of one entry; nothing is read or hashed for it."""

    name: str
    kind: Kind
    state: State
    #: Bytes to download, None where unpublished.
    size: int | None
    licence: str
    path: Path


@dataclass(frozen=True)
class Verified:
    """Weights in order: the SHA-256 of each file as fetched, the converted one's fingerprint."""

    name: str
    path: Path
    fingerprint: str
    sha256: dict[str, str]


@dataclass(frozen=True)
class _Fetched:
    """One downloaded file, as the record holds it."""

    name: str
    size: int
    sha256: str
    source: str


def home() -> Path:
    """Where the store is: ``AMFAST_HOME``, or a folder of the user's cache."""
    return Path(os.environ.get("AMFAST_HOME") or pooch.os_cache("amfast")).expanduser().absolute()


def path(name: str) -> Path:
    """Where the weights of this name are, or will be; ``UsageError`` for an unknown name."""
    return home() / f"{find(name).name}.safetensors"


def downloads(name: str) -> Path:
    """The folder of the files as they were fetched."""
    return home() / "downloads" / find(name).name


def resolve(name: str, *, for_metric: bool = False) -> Path:
    """The file of these weights, without a look at the network.

    ``for_metric`` says that they are a metric's, for which no command takes another file.
    Raises ``WeightsError`` saying how to fetch them where they are not here, and ``UsageError`` for
    an unknown name.
    """
    entry, there = find(name), path(name)
    if not there.is_file():
        option = None if for_metric else _OPTIONS.get(entry.kind)
        instead = f", or give a file with {option}" if option else ""
        raise WeightsError(
            f"the weights of {name} are not here: run 'amfast weights fetch {name}' "
            f"({shown_size(entry.size)}, licence: {entry.licence}){instead}"
        )
    return there


def shown_size(size: int | None) -> str:
    """A size for people."""
    return "size not published" if size is None else f"{size / 1e6:.0f} MB"


def status() -> list[Status]:
    """What the store has of every entry of the catalogue."""
    return [
        Status(e.name, e.kind, _state(e), e.size, e.licence, path(e.name))
        for e in CATALOGUE.values()
    ]


def _state(entry: Entry) -> State:
    if path(entry.name).is_file():
        return "fetched"
    return "unfinished" if any(_part(entry, file).exists() for file in entry.files) else "absent"


def fetch(
    name: str,
    *,
    on_progress: Callable[[Transfer], None] = lambda transfer: None,
    on_note: Callable[[str], None] = lambda note: None,
    patience: Patience = PATIENCE,
) -> Path:
    """The weights of this name as a safetensors file, downloaded unless they are here and sound.

    A file that is here and passes ``verify`` costs no network call. Otherwise each file is taken
    from ``downloads(name)`` if it is there and is the right one, or downloaded from its sources in
    turn, checked against the SHA-256 that is published or was recorded when it was first fetched,
    and converted. ``on_note`` hears of a file that had to be done again.

    Raises ``UsageError`` for an unknown name and ``WeightsError`` where no source gives the file,
    what it gives is not the file, there is no room for it, or another process is fetching it. What
    was downloaded in part is kept under a hidden name and resumed by the next call.
    """
    entry = find(name)
    if path(name).exists():
        try:
            return _check(entry).path
        except WeightsError as error:
            on_note(f"fetching {name} again: {error}")
    try:
        downloads(name).mkdir(parents=True, exist_ok=True)
        with locked(downloads(name) / "lock"):
            return _fetch(entry, on_progress, patience)
    except RunError as error:
        raise WeightsError(str(error)) from None
    except OSError as error:
        raise WeightsError(f"cannot keep weights in {home()}: {reason(error)}") from None


def _fetch(entry: Entry, on_progress: Callable[[Transfer], None], patience: Patience) -> Path:
    before = {file.name: file for file in _recorded(entry.name)[0]}
    fetched: list[_Fetched] = []
    places: list[Path] = []
    for file in entry.files:
        known = before.get(file.name)
        expected = _expected(file, known)
        kept = downloads(entry.name) / file.name
        if kept.is_file() and _has_hash(kept, expected):
            place, digest, source = kept, _hash(kept), known.source if known else "a file put there"
        else:
            place = _part(entry, file)
            digest, source = download(
                file,
                place,
                expected=expected,
                patience=patience,
                advice=_advice(entry, file, known),
                on_progress=on_progress,
            )
        places.append(place)
        fetched.append(_Fetched(file.name, place.stat().st_size, digest, source))
    try:
        tensors, metadata = _converted(entry, places)
    except WeightsError as error:
        for place, file in zip(places, entry.files, strict=True):
            if place == _part(entry, file):
                discard(place)
        raise WeightsError(f"what {fetched[0].source} gave is not {entry.name}: {error}") from None
    metadata["source_sha256"] = fetched[0].sha256
    _write_weights(path(entry.name), tensors, metadata)
    record = {
        **_FORMAT,
        "name": entry.name,
        "fingerprint": metadata["fingerprint"],
        "files": [asdict(file) for file in fetched],
        "fetched": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    write_json(_record(entry.name), record)
    for place, file in zip(places, entry.files, strict=True):
        place.replace(downloads(entry.name) / file.name)
        discard(_part(entry, file))
    return path(entry.name)


def verify(name: str) -> Verified:
    """Check what the store has under this name; reads all of it.

    The files as fetched must have the SHA-256 that was recorded, which must be the published one
    (a file that was deleted since is left out), and the converted file the fingerprint that was
    recorded. Raises ``WeightsError`` for weights that are missing, damaged or tampered with, and
    ``UsageError`` for an unknown name.
    """
    entry = find(name)
    resolve(name)
    try:
        return _check(entry)
    except WeightsError as error:
        raise WeightsError(f"{error}; 'amfast weights fetch {name}' puts it right") from None


def _check(entry: Entry) -> Verified:
    there, record = path(entry.name), _record(entry.name)
    files, wanted = _recorded(entry.name)
    if [file.name for file in files] != [file.name for file in entry.files]:
        raise WeightsError(f"{there} has no record in {record}")
    for file, remote in zip(files, entry.files, strict=True):
        if not file.sha256.startswith(remote.sha256 or ""):
            raise WeightsError(
                f"{record} says that {file.name} had the SHA-256 {file.sha256}, and "
                f"{remote.sha256} is published"
            )
        kept = downloads(entry.name) / file.name
        if kept.exists() and not _has_hash(kept, file.sha256):
            raise WeightsError(f"{kept} has changed since it was fetched")
    tensors, metadata = read_safetensors(there)
    found = fingerprint(tensors)
    stated = (metadata.get("name"), metadata.get("source_sha256"), metadata.get("fingerprint"))
    if not found == wanted == stated[2] or stated[:2] != (entry.name, files[0].sha256):
        raise WeightsError(f"{there} has changed since it was made of {files[0].name}")
    return Verified(entry.name, there, found, {file.name: file.sha256 for file in files})


def _converted(entry: Entry, places: list[Path]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of the first file, and what the converted one says of itself."""
    tensors, _ = read_weights(places[0], member=entry.member, tensors_alone=entry.tensors_alone)
    check_contents(entry.name, tensors)
    norm_eps = entry.norm_eps
    if entry.resolution is not None:
        norm_eps = _config_eps(places[1], entry.resolution)
    eps = {"norm_eps": norm_eps, "spectral_eps": entry.spectral_eps}
    return tensors, {
        "name": entry.name,
        "licence": entry.licence,
        "fingerprint": fingerprint(tensors),
        **{key: repr(value) for key, value in eps.items() if value is not None},
    }


def _config_eps(config: Path, resolution: int) -> float:
    """The eps of a BigGAN-deep's ``config.json``, which must be of this resolution."""
    try:
        found = parse_json(config.read_bytes())
        eps, size = float(found["eps"]), found["output_dim"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{config} is no BigGAN-deep's configuration: {error}") from None
    if size != resolution:
        raise WeightsError(f"{config} is of a generator of {size} px, expected {resolution} px")
    return eps


def _write_weights(there: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write under a temporary name, flush to the disk, rename."""
    temporary = there.with_name(f".{there.name}.tmp")
    own = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    try:
        try:
            save_file(own, temporary, metadata)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(there)
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(there.parent)
    except OSError as error:
        raise WeightsError(f"cannot write {there}: {reason(error)}") from None
    except SafetensorError as error:
        raise WeightsError(f"cannot write {there}: {error}") from None


def _part(entry: Entry, file: RemoteFile) -> Path:
    return downloads(entry.name) / f".{file.name}.part"


def _advice(entry: Entry, file: RemoteFile, known: _Fetched | None) -> str:
    held = f" (a SHA-256 in {_record(entry.name)} is of its first download)" if known else ""
    return (
        f"fetch again later, which goes on with what has arrived, or put the file into "
        f"{downloads(entry.name)} as {file.name} and fetch again{held}"
    )


def _record(name: str) -> Path:
    return home() / f"{name}.json"


def _recorded(name: str) -> tuple[list[_Fetched], str]:
    """The files of the last fetch and the fingerprint of what was made of them; none yet: empty."""
    try:
        found: Any = parse_json(_record(name).read_bytes())
        if {key: found[key] for key in _FORMAT} != _FORMAT:
            raise ValueError(f"it is no {_FORMAT['format']} of version 1")
        files = [_Fetched(**file) for file in found["files"]]
        if not all(isinstance(file.sha256, str) for file in files):
            raise ValueError("a SHA-256 in it is no text")
        return files, str(found["fingerprint"])
    except FileNotFoundError:
        return [], ""
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{_record(name)} cannot be read ({error}): delete it first, though nothing will then "
            f"hold {name} to its first download"
        ) from None


def _expected(file: RemoteFile, known: _Fetched | None) -> str | None:
    """The SHA-256 of the last download; where there is none, or another is published, that."""
    if known and known.sha256.startswith(file.sha256 or ""):
        return known.sha256
    return file.sha256


def _hash(file: Path) -> str:
    digest: str = pooch.file_hash(str(file))
    return digest


def _has_hash(file: Path, expected: str | None) -> bool:
    return expected is None or _hash(file).startswith(expected)
