"""Decode and resize with Pillow, in threads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from amfast.images.vetting import Reason, Vetted, vet, what_is_wrong

_WHITE = (255, 255, 255, 255)


class PillowLoader:
    """Files -> centre squares ``[3, size, size]`` uint8 on the CPU, or why there is none."""

    name = "pillow"

    def __init__(self, size: int) -> None:
        self.size = size
        self.pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))

    def load(self, paths: Sequence[Path]) -> list[Tensor | Reason]:
        return list(self.pool.map(partial(_load, size=self.size), paths))


def decode(vetted: Vetted) -> Image.Image | Reason:
    """The image in RGB: one that is transparent lies on white, as most pages would show it.

    Orientation tags and colour profiles are passed over, as they are where scores are published.
    """
    image = vetted.image
    try:
        image.load()
        if image.has_transparency_data:
            transparent = image.convert("RGBA")
            paper = Image.new("RGBA", image.size, _WHITE)
            return Image.alpha_composite(paper, transparent).convert("RGB")
        return image.convert("RGB")
    except Exception as error:  # damaged pixels make their decoder raise anything
        return what_is_wrong(error)


def _load(path: Path, size: int) -> Tensor | Reason:
    vetted = vet(path)
    image = decode(vetted) if isinstance(vetted, Vetted) else vetted
    if not isinstance(image, Image.Image):
        return image
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    # Cut first: the filter then sees nothing outside of the square, whoever applies it.
    square = image.crop((left, top, left + side, top + side))
    resized = square.resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)
