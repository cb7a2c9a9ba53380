"""Read weights from any file that people have them in, without running code that it may hold."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from amfast.errors import WeightsError

#: Under which checkpoints keep the weights, beside an optimiser's state and the like.
_CONTAINERS = ("state_dict", "model_state_dict", "model")


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and string metadata of a weights file.

    A safetensors file, or one of ``torch.save``: a state_dict, or a checkpoint that holds one under
    ``state_dict``, ``model_state_dict`` or ``model``; the prefix ``module.`` of data-parallel
    training goes. Only safetensors files have metadata. Raises ``WeightsError`` for a file that is
    missing, truncated, damaged, of another kind, or that would run code if it were unpickled.
    """
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise WeightsError(f"cannot read weights from {path}: {error.strerror}") from None
    pickled = head[:4] == b"PK\x03\x04" or head[:1] == b"\x80"
    return (_read_pickled(path), {}) if pickled else read_safetensors(path)


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
        labels = json.loads(metadata.get("labels", "[]"))
    except ValueError as error:
        raise WeightsError(f"{path}: its labels cannot be read: {error}") from None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise WeightsError(f"{path}: its labels should be a JSON list of names")
    return labels


def _read_pickled(path: Path) -> dict[str, Tensor]:
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own message goes on for lines, and advises to switch the check off.
        reason = str(error).split("Please file an issue")[0].split("WeightsUnpickler error:")[-1]
        raise WeightsError(
            f"{path} is damaged or holds more than tensors, which amfast does not unpickle because "
            f"that can run code: {' '.join(reason.split())[:300]}"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path} is truncated or damaged: {reason}") from None
    for name in _CONTAINERS:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
            break
    tensors = found if isinstance(found, Mapping) else {}
    if not tensors or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise WeightsError(
            f"{path} holds no state_dict: expected tensors by name, alone or under one of "
            f"{', '.join(map(repr, _CONTAINERS))}"
        )
    return {str(name).removeprefix("module."): tensor for name, tensor in tensors.items()}
