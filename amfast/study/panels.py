"""Panels of images as small files, the two of a question treated alike."""

from __future__ import annotations

import io

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from amfast.images.picture import to_bytes

#: A panel's largest size in bytes, wherever a quality of ``_QUALITIES`` reaches it.
MOST_BYTES = 150_000
#: A panel's largest side in pixels.
_LARGEST = 768
_QUALITIES = (90, 82, 74, 66, 58, 50, 40, 30)


def encode_pair(left: Tensor, right: Tensor) -> tuple[bytes, bytes]:
    """Two panels ``[N, 3, R, R]``, uint8, N a square number, as WebP files.

    Both have the same size in pixels and the same quality, the best at which neither is larger than
    ``MOST_BYTES``: were each encoded as it needs, the more diverse one would look the coarser.
    """
    grids = [_grid(images) for images in (left, right)]
    for quality in _QUALITIES:
        one, other = (_webp(grid, quality) for grid in grids)
        if max(len(one), len(other)) <= MOST_BYTES:
            break
    return one, other


def _grid(images: Tensor) -> Image.Image:
    """The images in as many rows as columns, without gaps, pooled to ``_LARGEST`` where larger."""
    side = round(len(images) ** 0.5)
    cell = min(images.shape[-1], _LARGEST // side)
    if cell < images.shape[-1]:
        floats = F.interpolate(images.float(), cell, mode="bilinear", antialias=True)
        images = to_bytes(floats / 127.5 - 1)
    rows = [torch.cat(list(row), dim=2) for row in images.split(side)]  # each [3, R, side * R]
    return Image.fromarray(torch.cat(rows, dim=1).permute(1, 2, 0).contiguous().numpy())


def _webp(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=quality, method=4)
    return buffer.getvalue()
