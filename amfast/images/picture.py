"""Grids of images as PNG files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_LARGEST = 128  # pixels to a side; larger images are pooled down
_PAPER, _INK, _GAP, _LINE = (255, 255, 255), (30, 30, 30), 12, 18


@dataclass(frozen=True)
class PictureRow:
    """One line of a picture: a name, then groups of images ``[N, 3, H, W]`` in [-1, 1]."""

    name: str
    groups: Sequence[Tensor | None]  # None leaves the group's place empty


def to_image(images: Tensor) -> Image.Image:
    """Images ``[N, 3, H, W]`` in [-1, 1], one beside the other."""
    if images.shape[-1] > _LARGEST:
        images = F.adaptive_avg_pool2d(images, _LARGEST)
    strip = torch.cat(list(images), dim=2)  # [3, H, N * W]
    return Image.fromarray(to_bytes(strip).permute(1, 2, 0).contiguous().numpy())


def to_bytes(images: Tensor) -> Tensor:
    """Images in [-1, 1] -> uint8, each value the nearest byte; what was a byte comes back as it."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def side_by_side(headings: Sequence[str], rows: Sequence[PictureRow]) -> bytes:
    """A PNG with a heading above each group, a row's name above its images."""
    strips = [[None if g is None else to_image(g) for g in row.groups] for row in rows]
    width, height = next(s.size for row in strips for s in row if s is not None)
    canvas = Image.new(
        "RGB",
        (_GAP + len(headings) * (width + _GAP), _GAP + _LINE + len(rows) * (height + _LINE + _GAP)),
        _PAPER,
    )
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    lefts = [_GAP + column * (width + _GAP) for column in range(len(headings))]
    for left, heading in zip(lefts, headings, strict=True):
        draw.text((left, _GAP // 2), heading, fill=_INK, font=font)
    top = _GAP + _LINE
    for row, images in zip(rows, strips, strict=True):
        draw.text((_GAP, top), row.name, fill=_INK, font=font)
        for left, strip in zip(lefts, images, strict=True):
            if strip is not None:
                canvas.paste(strip, (left, top + _LINE))
        top += height + _LINE + _GAP
    buffer = io.BytesIO()
    canvas.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
