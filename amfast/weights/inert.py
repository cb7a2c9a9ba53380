"""Unpickle the tensors of a checkpoint and nothing else: no class or function it names is called.

``torch.load(weights_only=True)`` refuses a checkpoint that names a class it does not know, though
it may sit in an optimiser's state that nobody wants. Here such a name stands for an object that
takes everything and does nothing.
"""

from __future__ import annotations

import pickle
import tarfile
import warnings
from collections import OrderedDict
from types import SimpleNamespace
from typing import IO, Any

import torch
from torch import Tensor
from torch.serialization import SourceChangeWarning


class Inert:
    """In the place of whatever a checkpoint holds beside tensors, dicts, lists and numbers."""

    #: torch would write a file about a class whose source was pickled and has changed since.
    dump_patches = False

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


class _RebuildTensor:
    """``torch._utils._rebuild_tensor`` and ``_v2``: a strided view of a storage.

    No function, because a pickle can set attributes of what it is given; this has none.
    """

    __slots__ = ()

    def __call__(
        self, storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
    ) -> Tensor:
        empty = torch.empty(0, dtype=storage.dtype)
        return empty.set_(storage._untyped_storage, offset, size, stride)


class _RebuildParameter:
    """``torch._utils._rebuild_parameter``: its tensor."""

    __slots__ = ()

    def __call__(self, data: object, *_: object) -> object:
        return data


#: All that a pickle is given for the names in it: how torch has pickled tensors since 2017.
_KNOWN: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _RebuildTensor(),
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _KNOWN.get((module, name), Inert)


def load_tensors(file: IO[bytes]) -> Any:
    """What a file of ``torch.save`` holds, with ``Inert`` in the place of other classes.

    Raises whatever a damaged pickle makes its reader raise.
    """
    if tarfile.is_tarfile(file):  # torch would unpack it, with the links that it may hold
        raise pickle.UnpicklingError("a tar archive, as torch wrote them before 2017")
    file.seek(0)
    # torch.load takes its unpickler from a module of this shape, and does the rest itself:
    # archives, files of before 2020, storages.
    module = SimpleNamespace(
        __name__="amfast.weights.inert",
        Unpickler=_Unpickler,
        load=lambda opened, **options: _Unpickler(opened, **options).load(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SourceChangeWarning)  # of Inert, against the true class
        return torch.load(
            file,
            map_location="cpu",
            pickle_module=module,
            weights_only=False,
            encoding="latin-1",  # text of Python 2 was bytes of any kind
        )
