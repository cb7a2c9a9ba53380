"""Which files can be used as images, decided the same way whoever decodes them."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image, ImageFile, UnidentifiedImageError

#: Why a file is left out, in words.
Reason = Literal[
    "cannot be read",
    "empty",
    "no image of a known format",
    "truncated",
    "corrupt",
    "CMYK",
    "16-bit",
    "animated",
    "too large",
    "of an unusual colour mode",
]

#: Formats that Pillow is asked to open; others, such as PostScript, would start programs.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
#: Pixels in an image, above which Pillow warns of a decompression bomb, and bytes in a file.
MOST_PIXELS = 89_478_485
MOST_BYTES = 500_000_000
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA"}

_JPEG = b"\xff\xd8"
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_RESTARTS, _END, _SCAN = range(0xD0, 0xD8), 0xD9, 0xDA
#: Tables, comments and applications' data, which may stand between the scans of a JPEG.
_BETWEEN_SCANS = {0xC4, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)}


@dataclass(frozen=True)
class Skipped:
    """A file that was left out."""

    path: Path
    reason: Reason


@dataclass(frozen=True)
class Vetted:
    """A file's bytes, and the image in them of which only the header has been read."""

    data: bytes
    image: ImageFile.ImageFile

    @property
    def is_jpeg(self) -> bool:
        return self.image.format in ("JPEG", "MPO")


def vet(path: Path) -> Vetted | Reason:
    """Read a file, and its image's header; why it cannot be used, where that much shows it.

    JPEGs are also searched for their end: decoders do not agree on what is damaged behind the
    header. Thread-safe.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            return "too large"
        data = path.read_bytes()
    except OSError:
        return "cannot be read"
    if not data:
        return "empty"
    if data.startswith(_JPEG) and (fault := _jpeg_fault(data)):
        return fault
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        return _unusable(image) or Vetted(data, image)
    except UnidentifiedImageError:
        return "no image of a known format"
    except Image.DecompressionBombError:
        return "too large"
    except Exception as error:  # a damaged header makes its reader raise anything
        return what_is_wrong(error)


def _unusable(image: ImageFile.ImageFile) -> Reason | None:
    if image.width * image.height > MOST_PIXELS:
        return "too large"
    if image.mode == "CMYK":
        return "CMYK"
    # A PNG or TIFF of 16 bits in colour opens as one of 8; how it is stored tells them apart.
    if image.mode[0] in "IF" or any(";16" in str(tile.args) for tile in image.tile):
        return "16-bit"
    if image.mode not in _MODES:
        return "of an unusual colour mode"
    # A photograph with a second picture for other displays (MPO) is one photograph.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        return "animated"
    return None


def _jpeg_fault(data: bytes) -> Reason | None:
    """What is wrong with a JPEG's segments, without decoding them (ITU T.81, annex B).

    Decoders go on behind a damaged scan, or stop: libjpeg by itself is content with what it has,
    and Pillow wants everything up to the end to be in order. So does this.
    """
    at, scanned, in_scan = 2, False, False
    while marker := _MARKER.search(data, at):
        code = marker[1][0]
        if scanned and not in_scan and marker.start() != at:
            return "corrupt"
        if code == _END:
            return None if scanned else "corrupt"
        at = marker.end()
        if code in _RESTARTS:
            continue
        if scanned and code != _SCAN and code not in _BETWEEN_SCANS:
            return "corrupt"
        at += int.from_bytes(data[at : at + 2], "big")
        in_scan = code == _SCAN
        scanned = scanned or in_scan
    return "truncated"


def what_is_wrong(error: Exception) -> Reason:
    """A word for what Pillow raised."""
    return "truncated" if "truncated" in str(error).lower() else "corrupt"
