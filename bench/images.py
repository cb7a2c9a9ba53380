"""How fast real images are loaded, by either backend: ``python -m bench.images``.

JPEGs of ImageNet's usual size, made here and read from the page cache, to 256 px.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from amfast.images.folder import ImageFolder
from amfast.images.loader import BackendName, ImageLoader
from bench.tables import markdown

BACKENDS: tuple[BackendName, ...] = ("pillow", "dali")
SIZE, ROUNDS = 256, 3


def write_images(root: Path, count: int) -> None:
    random = torch.Generator().manual_seed(0)
    for i in range(count):
        coarse = torch.randint(256, (47, 63, 3), generator=random, dtype=torch.uint8)
        image = Image.fromarray(coarse.numpy()).resize((500, 375), Image.Resampling.BICUBIC)
        image.save(root / f"{i}.jpg", quality=92)


def load(loader: ImageLoader) -> torch.Tensor:
    return torch.cat([batch.images for batch in loader])


def rates(count: int, device: str) -> dict[str, float]:
    """Images per second: medians of passes taken in turn, after the two were compared."""
    with tempfile.TemporaryDirectory() as name:
        write_images(Path(name), count)
        folder = ImageFolder.open(name)
        loaders = {b: ImageLoader(folder, SIZE, backend=b, device=device) for b in BACKENDS}
        first, second = (load(loader) for loader in loaders.values())
        torch.testing.assert_close(first, second, rtol=0, atol=2 / 127.5 + 1e-6)
        seconds: dict[str, list[float]] = {backend: [] for backend in BACKENDS}
        for _ in range(ROUNDS):
            for backend, loader in loaders.items():
                start = time.perf_counter()
                load(loader).sum().item()  # waits for the device
                seconds[backend].append(time.perf_counter() - start)
    return {backend: count / statistics.median(taken) for backend, taken in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    found = rates(options.images, options.device)
    rows = [[backend, f"{rate:.0f}"] for backend, rate in found.items()]
    print(markdown([["backend", "images per second"], *rows]))


if __name__ == "__main__":
    main()
