"""Unpickle the tensors of a checkpoint and nothing else: no class or function it names is called.

``torch.load(weights_only=True)`` refuses a checkpoint that names a class it does not know, though
it may sit in an optimiser's state that nobody wants. Here such a name stands for an object that
takes everything and does nothing.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from types import SimpleNamespace
from typing import IO, Any

import torch
from torch import Tensor


class Inert:
    """In the place of whatever a checkpoint holds beside tensors, dicts, lists and numbers."""

    def __init__(self, *_: object, **__: object) -> None:
        """Takes what the true class would be called with."""

    def __call__(self, *_: object, **__: object) -> Inert:
        return self

    def __setstate__(self, state: object) -> None:
        """Takes the true object's state."""

    def __setitem__(self, key: object, value: object) -> None:
        """A stand-in of a dict is filled like one."""

    def append(self, item: object) -> None:
        """A stand-in of a list is filled like one."""

    def extend(self, items: object) -> None:
        """A stand-in of a list is filled like one."""

    def add(self, item: object) -> None:
        """A stand-in of a set is filled like one."""


class _Unpickler(pickle.Unpickler):
    """Knows the three functions by which torch has pickled tensors since 2017, and OrderedDict.

    Each mention gets a function of its own: a pickle can set attributes of what it is given.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) in (
            ("torch._utils", "_rebuild_tensor"),
            ("torch._utils", "_rebuild_tensor_v2"),
        ):
            return lambda *arguments: _rebuild_tensor(*arguments)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, *_: data
        return Inert


def _rebuild_tensor(
    storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> Tensor:
    """A strided view of a storage; hooks and ``requires_grad``, which follow, are left."""
    return torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage, offset, size, stride)


def load_tensors(file: IO[bytes]) -> Any:
    """What a file of ``torch.save`` holds, with ``Inert`` in the place of other classes.

    Raises whatever a damaged pickle makes its reader raise.
    """
    # torch.load takes its unpickler from a module of this shape, and does the rest itself:
    # archives, files of before 2020, storages.
    module = SimpleNamespace(
        __name__="amfast.weights.inert",
        Unpickler=_Unpickler,
        load=lambda opened, **options: _Unpickler(opened, **options).load(),
    )
    return torch.load(file, map_location="cpu", pickle_module=module, weights_only=False)
