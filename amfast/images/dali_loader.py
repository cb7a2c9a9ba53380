"""Decode with NVIDIA DALI, on a GPU where there is one, and resize where it was decoded."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from amfast.errors import UsageError
from amfast.images.pillow_loader import decode
from amfast.images.vetting import Reason, Vetted, vet


class DaliLoader:
    """Files -> centre squares ``[3, size, size]`` uint8 on ``device``, or why there is none.

    JPEGs are decoded by DALI, in its dynamic mode: a pipeline ends at the first damaged file. Those
    that DALI refuses, and the other formats, are decoded by Pillow, which has the last word.

    Raises ``UsageError`` where DALI is not installed, or cannot decode on ``device``.
    """

    name = "dali"

    def __init__(self, size: int, device: torch.device) -> None:
        self.size, self.device = size, device
        try:
            self._dali: Any = import_module("nvidia.dali.experimental.dynamic")
            self._rgb: Any = import_module("nvidia.dali.types").RGB
        except ImportError as error:
            raise UsageError(f"DALI is not here ({error}): pip install 'amfast[dali]'") from None
        self.pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        try:
            self._decode([_tiny_jpeg()])  # what is missing shows only then
        except Exception as error:  # of CUDA's runtime, of the driver, of DALI
            raise UsageError(
                f"DALI cannot decode on {device}: {error.__cause__ or error}; load with Pillow"
            ) from None

    def load(self, paths: Sequence[Path]) -> list[Tensor | Reason]:
        vetted = list(self.pool.map(vet, paths))
        sound = {i: v for i, v in enumerate(vetted) if isinstance(v, Vetted)}
        decoded: dict[int, Tensor | Reason] = {
            i: v for i, v in enumerate(vetted) if not isinstance(v, Vetted)
        }
        decoded |= self._decode_all({i: v.data for i, v in sound.items() if v.is_jpeg})
        rest = [i for i in sound if i not in decoded]
        decoded |= zip(rest, self.pool.map(_with_pillow, (sound[i] for i in rest)), strict=True)
        return [self._square(decoded[i]) for i in range(len(paths))]

    def _decode_all(self, jpegs: dict[int, bytes]) -> dict[int, Tensor]:
        """Those that DALI can decode, ``[H, W, 3]`` uint8: one that it cannot fails its batch."""
        if not jpegs:
            return {}
        try:
            return dict(zip(jpegs, self._decode(list(jpegs.values())), strict=True))
        except RuntimeError:
            if len(jpegs) == 1:
                return {}
            alone = (self._decode_all({i: data}) for i, data in jpegs.items())
            return {i: pixels for found in alone for i, pixels in found.items()}

    def _decode(self, jpegs: list[bytes]) -> list[Tensor]:
        encoded = self._dali.batch([np.frombuffer(data, np.uint8) for data in jpegs])
        images = self._dali.decoders.image(
            encoded,
            device=str(self.device),
            output_type=self._rgb,
            adjust_orientation=False,  # as Pillow
            jpeg_fancy_upsampling=True,  # as libjpeg
        )
        return [image.torch() for image in images.tensors]

    def _square(self, pixels: Tensor | Reason) -> Tensor | Reason:
        """``[H, W, 3]`` uint8 -> ``[3, size, size]``: what Pillow's bilinear filter gives, to 1."""
        if not isinstance(pixels, Tensor):
            return pixels
        height, width, _ = pixels.shape
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = pixels[top : top + side, left : left + side].to(self.device).permute(2, 0, 1)
        resized = F.interpolate(
            square[None].float(), (self.size, self.size), mode="bilinear", antialias=True
        )
        return resized[0].round().clamp(0, 255).to(torch.uint8)


def _with_pillow(vetted: Vetted) -> Tensor | Reason:
    image = decode(vetted)
    return torch.from_numpy(np.array(image)) if isinstance(image, Image.Image) else image


def _tiny_jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG")
    return file.getvalue()
