"""The images that are compared, class by class, as the bytes that a file of them would hold."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from amfast.embedded import render
from amfast.embedded.shapes import GENERATOR_SHAPES, UNSEEN_SHAPES
from amfast.errors import RunError, UsageError
from amfast.generators.protocol import Generator, device_of
from amfast.images.folder import ImageFolder
from amfast.images.loader import MOST_SKIPPED, ImageLoader
from amfast.images.picture import to_bytes
from amfast.images.statistics import (
    Statistics,
    cached,
    content_hash,
    skipped_from_text,
    skipped_to_text,
)
from amfast.images.vetting import Skipped
from amfast.optimize.parallel import side_by_side

#: On a CPU; more images at once fall out of its caches.
_PER_CPU_PASS, _PER_PASS = 20, 100

#: Images ``[N, 3, R, R]``, uint8 -> what is known of them.
Look = Callable[[Tensor], dict[str, Tensor]]


class RealImages(ABC):
    """Real images of classes."""

    name: str
    #: Whether every class has the same ones.
    alike: bool = False

    @abstractmethod
    def of_class(self, class_id: int, count: int) -> Tensor:
        """At most ``count`` images ``[N, 3, R, R]``, uint8, on the CPU."""

    def remembered(self, class_id: int, count: int, key: str, look: Look) -> dict[str, Tensor]:
        """What ``look`` says of those images; a set that knows its content keeps it for ``key``."""
        return look(self.of_class(class_id, count))

    def further(self, part: int, count: int, key: str, look: Look) -> dict[str, Tensor]:
        """The same of ``count`` others of a set that is ``alike``, empty where there are none left.

        Part 0 is what ``remembered`` looks at; no image is in two parts.
        """
        return {}


class Renderer(RealImages):
    """What the embedded generator learned from: pictures drawn from fresh latents.

    ``classes`` (id -> name) are shapes by their names. Raises ``UsageError`` for one that is none
    and for another ``size`` than the renderer's.
    """

    name = "renderer"

    def __init__(self, classes: Mapping[int, str], *, size: int, seed: int) -> None:
        shapes = GENERATOR_SHAPES | UNSEEN_SHAPES
        if size != render.RESOLUTION:
            raise UsageError(
                f"the renderer draws pictures of {render.RESOLUTION} pixels, and the generator's "
                f"have {size}: give a folder of real images, or original"
            )
        if unknown := [name for name in classes.values() if name not in shapes]:
            raise UsageError(
                f"the renderer draws no {unknown[0]!r}, only the shapes that the embedded pair "
                "knows: give a folder of real images, or original"
            )
        self._seed = seed
        self._shapes = {class_id: shapes[name] for class_id, name in classes.items()}

    def of_class(self, class_id: int, count: int) -> Tensor:
        stream = class_stream(self._seed, class_id, "real")
        drawn = []
        for part in torch.randn(count, render.LATENT_DIM, generator=stream).split(_PER_PASS):
            first = torch.zeros(len(part), dtype=torch.int64)
            drawn.append(to_bytes(render.render([self._shapes[class_id]], first, part)))
        return torch.cat(drawn)


class FolderImages(RealImages):
    """A folder of real images, by class or, in a flat folder, the same for every class.

    ``classes`` (id -> name) are those that it must have, by the names or ids of ``labels``.
    ``on_note`` hears once why images are not loaded with DALI where they could be, and why what was
    seen is not kept. Raises
    ``UsageError`` as ``ImageFolder.open`` and ``ImageLoader`` do and for a class without images,
    and ``RunError`` where more than 1 % of all classes' images cannot be used.
    """

    def __init__(
        self,
        path: str | Path,
        labels: Sequence[str],
        classes: Mapping[int, str],
        *,
        size: int,
        seed: int,
        device: torch.device,
        on_note: Callable[[str], None] = lambda note: None,
    ) -> None:
        self.name = str(path)
        self.skipped: list[Skipped] = []
        self._folder = ImageFolder.open(path, labels)
        self.alike = not self._folder.class_ids
        self._size, self._seed, self._device = size, seed, device
        self._on_note, self._noted = on_note, set[str]()
        self._classes = tuple(classes)
        self._most_skipped: dict[int, int] = {}  # by images per class
        self._looked_at: dict[tuple[int, str], dict[str, Tensor]] = {}
        known = self._folder.class_ids
        lacking = [f"{i} {name}" for i, name in classes.items() if i not in known]
        if known and lacking:
            more = ", ..." if lacking[5:] else ""
            raise UsageError(
                f"{path} has no images of {', '.join(lacking[:5])}{more}: add folders of them, or "
                "evaluate embeddings of other classes"
            )

    def of_class(self, class_id: int, count: int) -> Tensor:
        images, skipped = self._load(self._sample(class_id, count), count)
        self._skip(skipped)
        return self._some(images, skipped)

    def remembered(self, class_id: int, count: int, key: str, look: Look) -> dict[str, Tensor]:
        """Kept among the statistics of real sets, by the content of the class's files.

        Those of a flat folder are looked at once for all classes.
        """
        if self.alike and (count, key) in self._looked_at:
            return self._looked_at[count, key]
        found = self._kept(
            self._sample(class_id, count),
            count,
            key,
            lambda images, skipped: look(self._some(images, skipped)),
        )
        self._looked_at = {(count, key): found}
        return found

    def further(self, part: int, count: int, key: str, look: Look) -> dict[str, Tensor]:
        sample = self._folder.sample(count, self._seed, part=part)
        if not len(sample):
            return {}
        return self._kept(
            sample, (part + 1) * count, key, lambda images, _: look(images) if len(images) else {}
        )

    def _kept(
        self,
        sample: ImageFolder,
        count: int,
        key: str,
        look: Callable[[Tensor, Sequence[Skipped]], dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        def compute() -> Statistics:
            images, skipped = self._load(sample, count)
            return Statistics(look(images, skipped), {"skipped": skipped_to_text(skipped, sample)})

        content = content_hash(sample, self._size)
        found = cached(f"{content}-{key}", compute, on_note=self._note)
        skipped = skipped_from_text(found.metadata["skipped"], sample)
        if len(skipped) > self._may_skip(sample, count):
            self._load(sample, count)  # kept beside other classes, of more images: says what is bad
        self._skip(skipped)
        return dict(found.tensors)

    def _sample(self, class_id: int, count: int) -> ImageFolder:
        folder = self._folder
        if folder.class_ids:
            folder = folder.of_classes([class_id])
        return folder.sample(count, self._seed)

    def _may_skip(self, sample: ImageFolder, count: int) -> int:
        """How many of a class's files: of all classes' so many, less what others have taken up."""
        if count not in self._most_skipped:
            folder = self._folder
            if folder.class_ids:
                folder = folder.of_classes(self._classes)
            self._most_skipped[count] = int(MOST_SKIPPED * folder.sample_size(count))
        mine = {file.path for file in sample.files}
        others = sum(skipped.path not in mine for skipped in self.skipped)
        return self._most_skipped[count] - others

    def _load(self, sample: ImageFolder, count: int) -> tuple[Tensor, list[Skipped]]:
        loader = ImageLoader(
            sample,
            self._size,
            device=self._device,
            may_skip=self._may_skip(sample, count),
            on_note=self._note,
        )
        none = torch.empty(0, 3, self._size, self._size, dtype=torch.uint8)
        found = [to_bytes(batch.images).cpu() for batch in loader]
        return torch.cat(found or [none]), loader.skipped

    def _some(self, images: Tensor, skipped: Sequence[Skipped]) -> Tensor:
        if not len(images):
            raise RunError(
                f"none of the {len(skipped)} images of a class in {self.name} can be used; the "
                f"first is {skipped[0].path}: {skipped[0].reason}"
            )
        return images

    def _skip(self, skipped: Sequence[Skipped]) -> None:
        self.skipped += [found for found in skipped if found not in self.skipped]

    def _note(self, note: str) -> None:
        if note not in self._noted:
            self._on_note(note)
        self._noted.add(note)


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
def sample_bytes(generator: Generator, embedding: Tensor, latents: Tensor) -> Tensor | None:
    """Images ``[N, 3, R, R]`` of one embedding ``[E]``, uint8, on the CPU.

    None where one of them is not finite, for which there is no byte.
    """
    device = latents.device
    row = embedding[None].to(device)
    parts = latents.split(_PER_CPU_PASS if device.type == "cpu" else _PER_PASS)

    def sample(part: Tensor) -> Tensor | None:
        with torch.no_grad():  # which holds in the thread that sets it alone
            images = generator(row, part[None]).float()
            return to_bytes(images).cpu() if images.isfinite().all() else None

    with side_by_side(device, len(parts)) as run:
        found: list[Tensor | None] = run(sample, parts)
    finite = [images for images in found if images is not None]
    return torch.cat(finite) if len(finite) == len(found) else None


def to_float(images: Tensor, device: torch.device) -> Tensor:
    """Bytes -> images in [-1, 1], fp32."""
    return images.to(device).float() / 127.5 - 1
