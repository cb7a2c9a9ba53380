"""Read weights from any file that people have them in, without running code that it may hold."""

from __future__ import annotations

import pickle
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from amfast.errors import WeightsError
from amfast.text import parse_json
from amfast.weights.inert import load_tensors

#: What ``weights`` says for seeded random ones, to try speed and plumbing.
RANDOM = "random"

#: Under which checkpoints keep the weights, beside an optimiser's state and the like.
_CONTAINERS = ("state_dict", "model_state_dict", "model")

#: What a safetensors file has from its fifth byte: the end of a 64-bit length, of which the first
#: bytes may be any, and the brace of its header.
_HEADER = b"\0\0\0\0{"

#: Where robust training keeps the classifier, beside an attacker and a normaliser.
_ROBUST = "module.model."


def read_weights(
    path: Path, *, member: str | None = None, tensors_alone: bool = False
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and string metadata of a weights file.

    A safetensors file, or one of ``torch.save``: a state_dict, or a checkpoint that holds one under
    ``state_dict``, ``model_state_dict`` or ``model``. The prefix ``module.`` of data-parallel
    training goes; of a checkpoint with names in ``module.model.``, as robust training leaves, those
    alone are taken. Only safetensors files have metadata. ``member`` names the file within a zip.
    ``tensors_alone`` reads a checkpoint for its tensors where it names classes as well, none of
    which is loaded or called (``amfast.weights.inert``).

    Raises ``WeightsError`` for a file that is missing, truncated, damaged, of another kind, or,
    without ``tensors_alone``, that would run code if it were unpickled.
    """
    try:
        with path.open("rb") as file:
            head = file.read(9)
            file.seek(0)
            if member is not None:
                with _extracted(file, member, path) as inner:
                    return _read_pickled(inner, path, tensors_alone), {}
            pickled = head[:4] == b"PK\x03\x04" or head[:1] == b"\x80"
            if pickled and head[4:] != _HEADER:
                return _read_pickled(file, path, tensors_alone), {}
    except OSError as error:
        raise WeightsError(f"cannot read weights from {path}: {error.strerror or error}") from None
    return read_safetensors(path)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file; ``WeightsError`` where it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot read weights from {path}: {error}") from None


def read_labels(metadata: Mapping[str, str], path: Path) -> list[str]:
    """The class names in a file's metadata, none where it has no ``labels``.

    Raises ``WeightsError`` where they are not a JSON list of strings.
    """
    try:
        labels = parse_json(metadata.get("labels", "[]"))
    except ValueError as error:
        raise WeightsError(f"{path}: its labels cannot be read: {error}") from None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise WeightsError(f"{path}: its labels should be a JSON list of names")
    return labels


@contextmanager
def _extracted(file: IO[bytes], member: str, path: Path) -> Iterator[IO[bytes]]:
    """A zip's member as a file of its own, in which torch can seek; gone afterwards."""
    try:
        with zipfile.ZipFile(file) as archive, TemporaryFile() as inner:
            if member not in archive.namelist():
                raise WeightsError(f"{path} holds no {member}: {_named(archive.namelist())}")
            with archive.open(member) as packed:
                shutil.copyfileobj(packed, inner, 2**20)
            inner.seek(0)
            yield inner
    except (WeightsError, OSError):
        raise
    except Exception as error:  # a damaged archive makes its reader raise anything
        raise WeightsError(f"{path} is truncated or damaged: {error}") from None


def _named(names: list[str]) -> str:
    return "it holds " + (", ".join(names[:5]) + (", ..." if names[5:] else "") or "nothing")


def _read_pickled(file: IO[bytes], path: Path, tensors_alone: bool) -> dict[str, Tensor]:
    try:
        found: Any = (
            load_tensors(file)
            if tensors_alone
            else torch.load(file, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # a damaged pickle makes its reader raise anything
        raise WeightsError(_what_is_wrong(file, path, error)) from None
    for name in _CONTAINERS:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
            break
    tensors = found if isinstance(found, Mapping) else {}
    if not tensors or not all(_is_plain(t) for t in tensors.values()):
        raise WeightsError(
            f"{path} holds no state_dict: expected tensors by name, alone or under one of "
            f"{', '.join(map(repr, _CONTAINERS))}"
        )
    named = {str(name): tensor for name, tensor in tensors.items()}
    robust = {k.removeprefix(_ROBUST): t for k, t in named.items() if k.startswith(_ROBUST)}
    return robust or {name.removeprefix("module."): tensor for name, tensor in named.items()}


def _what_is_wrong(file: IO[bytes], path: Path, error: Exception) -> str:
    """A sentence for what torch raised."""
    file.seek(0)
    # What is no archive, or a damaged one, makes its reader raise anything.
    with suppress(Exception), zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if not any(name.endswith("data.pkl") for name in names):
            return f"{path} is an archive, not weights: unpack it and name a file; {_named(names)}"
    if not isinstance(error, pickle.UnpicklingError):
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return f"{path} is truncated or damaged: {reason}"
    # torch's own message goes on for lines, and advises to switch the check off.
    said = " ".join(str(error).split())
    name = re.search(r"GLOBAL (\S+)", said)
    asked = f" (it asks for {name[1][:80]})" if name else ""
    ours = "" if name or "weights_only" in said else f": {said[:300]}"
    return (
        f"{path} is damaged or holds more than tensors{asked}, which amfast does not unpickle "
        f"because that can run code{ours}"
    )


def _is_plain(value: object) -> bool:
    """A dense tensor in memory, which is all that a safetensors file can hold.

    It has a place for each of its numbers: one that repeats a few would fill any memory.
    """
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )
