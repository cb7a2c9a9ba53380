"""The images that are compared, class by class, as the bytes that a file of them would hold."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from amfast.embedded import render
from amfast.embedded.shapes import GENERATOR_SHAPES
from amfast.errors import UsageError
from amfast.generators.protocol import Generator, device_of
from amfast.images.folder import ImageFolder
from amfast.images.loader import ImageLoader
from amfast.images.picture import to_bytes
from amfast.images.vetting import Skipped
from amfast.optimize.parallel import side_by_side

#: On a CPU; more images at once fall out of its caches.
_CPU_PASS, _GPU_PASS = 20, 100


class RealImages(Protocol):
    """Real images of classes."""

    @property
    def name(self) -> str: ...

    def of_class(self, class_id: int, count: int) -> Tensor:
        """At most ``count`` images ``[N, 3, R, R]``, uint8, on the CPU."""
        ...


class Renderer:
    """What the embedded generator learned from: pictures drawn from fresh latents."""

    name = "renderer"

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._shapes = list(GENERATOR_SHAPES.values())

    def of_class(self, class_id: int, count: int) -> Tensor:
        stream = class_stream(self._seed, class_id, "real")
        drawn = []
        for part in torch.randn(count, render.LATENT_DIM, generator=stream).split(_GPU_PASS):
            ids = torch.full((len(part),), class_id)
            drawn.append(to_bytes(render.render(self._shapes, ids, part)))
        return torch.cat(drawn)


class FolderImages:
    """A folder of real images, by class or, in a flat folder, the same for every class.

    Raises ``UsageError`` as ``ImageFolder.open`` and ``ImageLoader`` do.
    """

    def __init__(
        self,
        path: str | Path,
        labels: Sequence[str],
        size: int,
        seed: int,
        on_note: Callable[[str], None],
    ) -> None:
        self.name = str(path)
        self.skipped: list[Skipped] = []
        self._folder = ImageFolder.open(path, labels)
        self._size, self._seed, self._on_note = size, seed, on_note

    def of_class(self, class_id: int, count: int) -> Tensor:
        folder = self._folder
        if folder.class_ids:
            folder = folder.of_classes([class_id])
        if not len(folder):
            raise UsageError(f"{self.name} has no images of class {class_id}")
        loader = ImageLoader(
            folder.sample(count, self._seed), self._size, device="cpu", on_note=self._on_note
        )
        found = [to_bytes(batch.images) for batch in loader]
        self.skipped += loader.skipped
        return torch.cat(found)


def class_stream(seed: int, class_id: int, purpose: str) -> torch.Generator:
    """Random numbers of an evaluation: equal seeds give a class the same, whatever the others."""
    key = f"{seed}/{class_id}/evaluation/{purpose}".encode()
    digest = hashlib.blake2b(key, digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def class_latents(generator: Generator, class_id: int, count: int, seed: int) -> Tensor:
    """Latents ``[N, D]`` of a class: every embedding of it is shown on the same."""
    stream = class_stream(seed, class_id, "latents")
    drawn = torch.randn(count, generator.spec.latent_dim, generator=stream)
    return drawn.to(device_of(generator))


@torch.no_grad()
def sample_bytes(generator: Generator, embedding: Tensor, latents: Tensor) -> Tensor:
    """Images ``[N, 3, R, R]`` of one embedding ``[E]``, uint8, on the CPU."""
    device = latents.device
    row = embedding[None].to(device)
    parts = latents.split(_CPU_PASS if device.type == "cpu" else _GPU_PASS)

    def sample(part: Tensor) -> Tensor:
        with torch.no_grad():  # which holds in the thread that sets it alone
            return to_bytes(generator(row, part[None]).float()).cpu()

    with side_by_side(device, len(parts)) as run:
        return torch.cat(run(sample, parts))


def to_float(images: Tensor, device: torch.device) -> Tensor:
    """Bytes -> images in [-1, 1], fp32."""
    return images.to(device).float() / 127.5 - 1
