"""Real images in batches, from files of which some are always bad."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from amfast.device import resolve_device
from amfast.errors import RunError, UsageError
from amfast.images.folder import ImageFile, ImageFolder
from amfast.images.pillow_loader import PillowLoader
from amfast.images.vetting import Reason, Skipped

BackendName = Literal["auto", "dali", "pillow"]

#: The share of a set that may be left out.
MOST_SKIPPED = 0.01


class Backend(Protocol):
    """Who decodes."""

    name: str

    def load(self, paths: Sequence[Path]) -> list[Tensor | Reason]:
        """Each file's centre square ``[3, size, size]`` uint8, or why there is none."""
        ...


@dataclass(frozen=True)
class ImageBatch:
    """Images ``[N, 3, size, size]`` float32 in [-1, 1], and the N files that they are of."""

    images: Tensor
    files: tuple[ImageFile, ...]


class ImageLoader:
    """The images of a folder in its order, ``batch_size`` files at a time.

    From each image the square in its middle is cut and resized to ``size``, bilinearly and
    antialiased as Pillow does; BigGAN's training data were cut before they were resized as well.
    ``backend`` is ``"dali"``, ``"pillow"``, or ``"auto"`` for DALI where it is installed and works
    on ``device``: which one serves is in ``backend``. They agree within 2/255 before the change of
    range, and skip the same files. ``on_note`` hears why DALI does not serve where it could.

    A file that cannot be used is skipped and listed in ``skipped``. Raises ``UsageError`` for
    sizes below 1, an unknown backend or one that does not work here, and, while it is iterated,
    ``RunError`` once more than ``may_skip`` files were skipped: 1 % of the folder's, unless it is a
    part of a larger set.
    """

    def __init__(
        self,
        folder: ImageFolder,
        size: int,
        *,
        batch_size: int = 64,
        backend: BackendName = "auto",
        device: str | torch.device = "auto",
        may_skip: int | None = None,
        on_note: Callable[[str], None] = lambda note: None,
    ) -> None:
        if size < 1 or batch_size < 1:
            raise UsageError(f"size {size} and batch_size {batch_size} must be at least 1")
        self.folder, self.size, self.batch_size = folder, size, batch_size
        self.device = resolve_device(device)
        self._backend = _choose(backend, size, self.device, on_note)
        self._may_skip = int(MOST_SKIPPED * len(folder)) if may_skip is None else may_skip
        #: Of the pass that is under way, or was the last.
        self.skipped: list[Skipped] = []

    @property
    def backend(self) -> str:
        return self._backend.name

    def __iter__(self) -> Iterator[ImageBatch]:
        self.skipped = []
        files = self.folder.files
        for start in range(0, len(files), self.batch_size):
            part = files[start : start + self.batch_size]
            with warnings.catch_warnings():
                # Pillow's, of files that are skipped anyway or of metadata that nothing reads.
                warnings.simplefilter("ignore")
                loaded = self._backend.load([file.path for file in part])
            kept = []
            for file, found in zip(part, loaded, strict=True):
                if isinstance(found, Tensor):
                    kept.append((file, found))
                else:
                    self.skipped.append(Skipped(file.path, found))
            self._check_skipped(start + len(part))
            if kept:
                squares = torch.stack([square for _, square in kept]).to(self.device)
                yield ImageBatch(squares.float() / 127.5 - 1, tuple(file for file, _ in kept))

    def _check_skipped(self, looked_at: int) -> None:
        if len(self.skipped) <= self._may_skip:
            return
        counts = Counter(skipped.reason for skipped in self.skipped).most_common()
        raise RunError(
            f"{len(self.skipped)} of the first {looked_at} images of {self.folder.root} cannot be "
            f"used: {', '.join(f'{count} {reason}' for reason, count in counts)}; the first is "
            f"{self.skipped[0].path}. At most {self._may_skip} may be skipped, {MOST_SKIPPED:.0%} "
            "of the whole set: repair, convert or remove them"
        )


def _choose(name: str, size: int, device: torch.device, on_note: Callable[[str], None]) -> Backend:
    if name not in ("auto", "dali", "pillow"):
        raise UsageError(f"unknown backend {name!r}: use auto, dali or pillow")
    if name == "dali" or (name == "auto" and _dali_is_installed()):
        from amfast.images.dali_loader import DaliLoader  # takes seconds to start

        try:
            return DaliLoader(size, device)
        except UsageError as error:
            if name == "dali":
                raise
            on_note(f"images are loaded with Pillow: {error}")
    return PillowLoader(size)


def _dali_is_installed() -> bool:
    # Other packages of NVIDIA's, which torch brings, share its namespace.
    return find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None
