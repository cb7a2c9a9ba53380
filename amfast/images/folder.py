"""Folders of real images, in the layouts that ImageNet and Places365 come in."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path

from amfast.errors import UsageError
from amfast.imagenet import CLASSES, imagenet_wnids
from amfast.runs.files import reason

#: What counts as an image; what such a file really holds is looked at when it is loaded.
SUFFIXES = frozenset(
    {".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
)
_WNID = re.compile(r"n\d{8}")
_SHOWN = 5  # names in an error's sentence


@dataclass(frozen=True)
class ImageFile:
    """A file, and the class that its folder is of; None where no classes were asked for."""

    path: Path
    class_id: int | None


@dataclass(frozen=True)
class ImageFolder:
    """Image files below ``root``, in the order of their paths."""

    root: Path
    files: tuple[ImageFile, ...]

    @classmethod
    def open(cls, path: str | Path, labels: Sequence[str] | None = None) -> ImageFolder:
        """Find the images below ``path``; none is opened.

        ``labels`` are a classifier's. With them every folder that holds images must name a class:
        by its name, in which case and ``_``, ``-``, ``/`` and spaces do not matter, also behind a
        folder of one letter as Places365 has them (``a/airfield``); or, for the 1,000 classes of
        ImageNet, by its wnid (``n01440764``). Where the labels are bare numbers, as many folders
        as there are classes are numbered in the order of their paths, which for Places365 is its
        own. A flat folder has no classes, with labels or without.

        Hidden files and files of other kinds are passed over. Raises ``UsageError`` for a path that
        is no folder or holds no image, for folders that name no class, and for wnids without timm.
        """
        root = Path(path)
        by_folder = _find(root)
        ids: dict[str, int] = {}
        if labels is not None and by_folder.keys() != {""}:
            ids = _class_ids(root, sorted(by_folder), labels)
        files = [
            ImageFile(root / folder / name, ids.get(folder))
            for folder, names in by_folder.items()
            for name in names
        ]
        return cls(root, tuple(sorted(files, key=_place)))

    def __len__(self) -> int:
        return len(self.files)

    @property
    def class_ids(self) -> tuple[int, ...]:
        """The classes that have images, in order; none for a folder without classes."""
        return tuple(sorted(class_id for class_id in self._by_class if class_id is not None))

    @cached_property
    def _by_class(self) -> dict[int | None, list[ImageFile]]:
        """Looked up once for every class, of which there may be as many as a million files."""
        found: dict[int | None, list[ImageFile]] = defaultdict(list)
        for file in self.files:
            found[file.class_id].append(file)
        return dict(found)

    def of_classes(self, class_ids: Collection[int]) -> ImageFolder:
        """The images of these classes alone."""
        of_each = [self._by_class.get(class_id, []) for class_id in set(class_ids)]
        files = of_each[0] if len(of_each) == 1 else sorted(chain(*of_each), key=_place)
        return replace(self, files=tuple(files))

    def sample(self, per_class: int, seed: int, *, part: int = 0) -> ImageFolder:
        """``per_class`` images of each class, or of all where there are no classes.

        A class that has fewer gives all. Part 1 are as many others, and so on, up to none. Which
        ones depends on the seed and the files' paths below ``root`` alone, not on the other
        classes. Raises ``UsageError`` for less than one.
        """
        if per_class < 1:
            raise UsageError(f"{per_class} images of each class were asked for; give at least 1")
        first = part * per_class
        drawn: set[ImageFile] = set()
        for files in self._by_class.values():
            ranked = sorted(files, key=lambda file: self._rank(file, seed))
            drawn.update(ranked[first : first + per_class])
        return replace(self, files=tuple(file for file in self.files if file in drawn))

    def sample_size(self, per_class: int) -> int:
        """How many images ``sample`` takes, without looking for which."""
        return sum(min(per_class, len(files)) for files in self._by_class.values())

    def _rank(self, file: ImageFile, seed: int) -> bytes:
        """A place in a random order that any machine finds again."""
        name = os.fsencode(file.path.relative_to(self.root).as_posix())
        return hashlib.sha256(f"{seed} ".encode() + name).digest()


def _place(file: ImageFile) -> tuple[str, ...]:
    return file.path.parts


def _find(root: Path) -> dict[str, list[str]]:
    """Folder below ``root``, ``""`` for itself -> names of the image files in it."""
    if not root.is_dir():
        wrong = "no folder" if root.exists() else "not there"
        raise UsageError(f"{root} is {wrong}: give a folder of images")
    found = {folder: names for folder, names in _walk(root) if names}
    if not found:
        raise UsageError(f"{root} holds no images: looked for {', '.join(sorted(SUFFIXES))}")
    return found


def _walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    seen: set[tuple[int, int]] = set()  # data sets are put together of links, which can form a ring
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            facts = os.stat(root / folder)
            if (facts.st_dev, facts.st_ino) in seen:
                continue
            seen.add((facts.st_dev, facts.st_ino))
            with os.scandir(root / folder) as entries:
                visible = sorted(
                    (entry for entry in entries if not entry.name.startswith(".")),
                    key=lambda entry: entry.name,
                )
        except OSError as error:
            raise UsageError(f"cannot look into {root / folder}: {reason(error)}") from None
        waiting += [f"{folder}/{e.name}".lstrip("/") for e in reversed(visible) if e.is_dir()]
        yield folder, [entry.name for entry in visible if _is_image(entry)]


def _is_image(entry: os.DirEntry[str]) -> bool:
    """By its name; a link that leads nowhere is one that cannot be read, and counted as such."""
    if Path(entry.name).suffix.lower() not in SUFFIXES:
        return False
    return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry))


def _class_ids(root: Path, folders: list[str], labels: Sequence[str]) -> dict[str, int]:
    """The class that each folder names."""
    names = {_name(label): class_id for class_id, label in reversed(list(enumerate(labels)))}
    exact = {label: class_id for class_id, label in enumerate(labels)}
    wnids = _wnids(root, labels) if any(map(_WNID.fullmatch, folders)) else {}
    known = {**{_name(wnid): class_id for wnid, class_id in wnids.items()}, **names}
    ids = {f: exact.get(f, known.get(_name(f))) for f in folders}
    found = {folder: class_id for folder, class_id in ids.items() if class_id is not None}
    if not found and len(folders) == len(labels) and _bare_numbers(labels):
        return {folder: i for i, folder in enumerate(sorted(folders, key=lambda f: f.split("/")))}
    unknown = [folder for folder in folders if folder not in found]
    if unknown:
        raise UsageError(_unmatched(root, unknown, names, labels))
    return found


def _wnids(root: Path, labels: Sequence[str]) -> dict[str, int]:
    if len(labels) != CLASSES:
        raise UsageError(
            f"the folders of {root} are named by ImageNet's wnids, and the classifier has "
            f"{len(labels)} classes, not its {CLASSES}: take one that knows ImageNet, or name the "
            "folders by the classes"
        )
    return {wnid: class_id for class_id, wnid in enumerate(imagenet_wnids())}


def _bare_numbers(labels: Sequence[str]) -> bool:
    return list(labels) == [str(i) for i in range(len(labels))]


def _name(text: str) -> str:
    """A folder's or a label's name as it is compared."""
    without_letter = re.sub(r"^/?[a-z]/", "", text)  # Places365 sorts its classes by it
    return re.sub(r"[\s/_-]+", " ", without_letter).strip().casefold()


def _unmatched(root: Path, unknown: list[str], names: dict[str, int], labels: Sequence[str]) -> str:
    shown = ", ".join(repr(folder or ".") for folder in unknown[:_SHOWN])
    more = f" and {len(unknown) - _SHOWN} more" if unknown[_SHOWN:] else ""
    said = f"these folders of {root} name no class: {shown}{more}"
    splits = sorted({folder.split("/")[0] for folder in unknown} & {"train", "val", "test"})
    if splits:
        return f"{said}; give one part of the set, such as {root / splits[0]}"
    if "" in unknown:
        return f"{said}; move the images that lie in {root} itself into folders, or give no labels"
    near = [n for f in unknown for n in difflib.get_close_matches(_name(f), names, n=1)][:_SHOWN]
    if near:
        return f"{said}; did you mean {', '.join(repr(labels[names[name]]) for name in near)}?"
    rest = ", ..." if labels[_SHOWN:] else ""
    return f"{said}; the classes are {', '.join(map(repr, labels[:_SHOWN]))}{rest}"
