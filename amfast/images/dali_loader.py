"""Decode with NVIDIA DALI, on a GPU where there is one, and resize where it was decoded."""

from __future__ import annotations

import io
import os
import threading
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
from torch.utils.dlpack import from_dlpack

from amfast.errors import UsageError
from amfast.images.pillow_loader import decode
from amfast.images.vetting import Reason, Vetted, vet

_ENCODED = "encoded"


class DaliLoader:
    """Files -> centre squares ``[3, size, size]`` uint8 on ``device``, or why there is none.

    JPEGs are decoded by DALI. Those that it refuses, and the other formats, are decoded by Pillow,
    which has the last word. Raises ``UsageError`` where DALI is not installed, or cannot decode on
    ``device``.

    Every thread has a pipeline of its own and gives it one image at a time: DALI 2.4 crashes the
    process where one image of a batch is damaged and another one is still waiting.
    """

    name = "dali"

    def __init__(self, size: int, device: torch.device) -> None:
        self.size, self.device = size, device
        try:
            self._dali: Any = import_module("nvidia.dali")
        except ImportError as error:
            raise UsageError(f"DALI is not here ({error}): pip install 'amfast[dali]'") from None
        self.pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        self._own = threading.local()
        try:
            self.pool.submit(self._decode, _tiny_jpeg()).result()  # what is missing shows only then
        except Exception as error:  # of CUDA's runtime, of the driver, of DALI
            said = " ".join(str(error).split())[:300]
            driver = ", or, with a driver of CUDA 12, pip install nvidia-dali-cuda120"
            raise UsageError(
                f"DALI cannot decode on {device} ({said}): use the backend pillow"
                f"{driver if device.type == 'cuda' else ''}"
            ) from None

    def load(self, paths: Sequence[Path]) -> list[Tensor | Reason]:
        # torch resizes in threads of its own, so not in these.
        return [self._square(pixels) for pixels in self.pool.map(self._pixels, paths)]

    def _pixels(self, path: Path) -> Tensor | Reason:
        """``[H, W, 3]`` uint8."""
        vetted = vet(path)
        if not isinstance(vetted, Vetted):
            return vetted
        if vetted.is_jpeg:
            try:
                return self._decode(vetted.data)
            except RuntimeError:
                del self._own.pipeline  # nothing runs in one that failed
        image = decode(vetted)
        return torch.from_numpy(np.array(image)) if isinstance(image, Image.Image) else image

    def _decode(self, jpeg: bytes) -> Tensor:
        if not hasattr(self._own, "pipeline"):
            self._own.pipeline = self._build()
        pipeline = self._own.pipeline
        pipeline.feed_input(_ENCODED, [np.frombuffer(jpeg, np.uint8)])
        (images,) = pipeline.run()
        return from_dlpack(images[0]).clone()  # the next image comes into the same memory

    def _build(self) -> Any:
        on_gpu = self.device.type == "cuda"
        pipeline = self._dali.Pipeline(
            batch_size=1,
            num_threads=1,
            device_id=self.device.index if on_gpu else None,
            prefetch_queue_depth=1,
        )
        with pipeline:
            encoded = self._dali.fn.external_source(
                name=_ENCODED, dtype=self._dali.types.UINT8, ndim=1
            )
            images = self._dali.fn.decoders.image(
                encoded,
                device="mixed" if on_gpu else "cpu",
                output_type=self._dali.types.RGB,
                adjust_orientation=False,  # as Pillow
                jpeg_fancy_upsampling=True,  # as libjpeg
            )
            pipeline.set_outputs(images)
        pipeline.build()
        return pipeline

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


def _tiny_jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG")
    return file.getvalue()
