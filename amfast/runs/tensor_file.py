"""Tensors with string metadata in one safetensors file: same content, same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from amfast.errors import RunError
from amfast.fingerprint import fingerprint
from amfast.runs.files import read_bytes, write_bytes

VERSION = "1"


def write_tensors(
    path: Path,
    kind: str,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    write: Callable[[Path, bytes], None] = write_bytes,
) -> None:
    """Write ``tensors``; the metadata gains ``format``, ``format_version`` and ``checksum``.

    ``write`` is how, ``write_bytes`` or ``commit_bytes``. Raises ``RunError`` where the file cannot
    be written.
    """
    own = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    header = {"format": kind, "format_version": VERSION, "checksum": fingerprint(own)}
    write(path, _sort_header(save(own, {**metadata, **header})))


def read_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata; ``RunError`` for a file that is missing, damaged or of another kind."""
    data = read_bytes(path)
    try:
        tensors = load(data)
    except (SafetensorError, KeyError) as error:  # KeyError: a dtype torch lacks
        raise RunError(f"{path} is truncated or damaged: {error}") from None
    metadata: dict[str, str] = _header(data).get("__metadata__") or {}
    found = f"{metadata.get('format')} version {metadata.get('format_version')}"
    if found != f"{kind} version {VERSION}":
        raise RunError(f"{path} holds {found}, expected {kind} version {VERSION}")
    if metadata.get("checksum") != fingerprint(tensors):
        raise RunError(f"{path} is damaged: its tensors do not match its checksum")
    return tensors, metadata


def check_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, tuple[torch.dtype, Sequence[int]]],
) -> None:
    """``RunError`` unless the tensors have exactly the expected names, dtypes and shapes."""
    found = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    if found != {name: (dtype, torch.Size(shape)) for name, (dtype, shape) in expected.items()}:
        raise RunError(f"{path} holds {_describe(found)}, expected {_describe(expected)}")


def check_generator(path: Path, metadata: Mapping[str, str], name: str, fingerprint: str) -> None:
    """``RunError`` if the file's embeddings belong to other weights than this generator's."""
    if metadata.get("generator_fingerprint") != fingerprint:
        raise RunError(
            f"{path} was made with generator {metadata.get('generator')} (fingerprint "
            f"{metadata.get('generator_fingerprint')}), and this is {name} (fingerprint "
            f"{fingerprint}): embeddings fit only the generator they were made with"
        )


def _describe(tensors: Mapping[str, tuple[torch.dtype, Sequence[int]]]) -> str:
    parts = [f"{name} {dtype} {list(shape)}" for name, (dtype, shape) in sorted(tensors.items())]
    return ", ".join(parts) or "no tensors"


def _header(data: bytes) -> dict[str, dict[str, str]]:
    """A safetensors file starts with its header's length (8 bytes) and its header (JSON)."""
    header: dict[str, dict[str, str]] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return header


def _sort_header(data: bytes) -> bytes:
    """The same file with its metadata in order; safetensors writes it in a random one."""
    text = json.dumps(_header(data), sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors stay aligned
    start = 8 + int.from_bytes(data[:8], "little")
    return len(text).to_bytes(8, "little") + text + data[start:]
