"""Images from a mixture of class embeddings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import count as count_up
from itertools import islice

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from amfast.errors import UsageError
from amfast.generators.protocol import Generator, device_of


class Sampler(IterableDataset[tuple[Tensor, int]]):
    """An ``IterableDataset`` of images of several class embeddings, in given shares.

    The paper's BigGAN+AM takes half of a class's images from the original embedding and half from
    AM's (section 3): ``Sampler(generator, torch.stack([original, found]))``. ``embeddings`` are
    ``[K, E]``, ``weights`` K shares, equal ones by default. Yields ``count`` images, or
    without end: ``[3, R, R]`` in [-1, 1], fp32, on the generator's device, each with the row of the
    embedding it is of.

    Image i is decided by the ``seed`` and i alone: its latent is drawn for it, and its embedding is
    the one that keeps every share within one image after any number of images (and so exact where
    the share is a whole number: 500 and 500 of 1000). ``images_per_pass`` go through the generator
    together, and change an image by rounding at most.

    Under a ``DataLoader`` every pass is drawn by one worker, so all images come once, the same as
    without workers, in an order that depends on the number of workers. Workers are for generators
    on the CPU: for one on CUDA they are refused, with ``UsageError`` when the iteration begins,
    and ``num_workers=0`` collates batches on the device.

    Raises ``UsageError`` for embeddings, weights or numbers that are out of bounds.
    """

    def __init__(
        self,
        generator: Generator,
        embeddings: Tensor,
        weights: Sequence[float] | None = None,
        *,
        count: int | None = None,
        seed: int = 0,
        images_per_pass: int = 32,
    ) -> None:
        super().__init__()
        width = generator.spec.embedding_dim
        if embeddings.dim() != 2 or len(embeddings) == 0 or embeddings.shape[1] != width:
            raise UsageError(
                f"the embeddings are {list(embeddings.shape)}; generator {generator.spec.name} "
                f"takes [K, {width}], one or more"
            )
        if not embeddings.isfinite().all():
            raise UsageError("the embeddings are not finite: they hold NaN or infinity")
        shares = torch.ones(len(embeddings)) if weights is None else torch.tensor(weights)
        shares = shares.double()
        if shares.shape != (len(embeddings),):
            raise UsageError(f"{len(embeddings)} embeddings need as many weights, given {weights}")
        if not (shares.isfinite().all() and (shares >= 0).all() and shares.sum() > 0):
            raise UsageError(f"weights should be 0 or more, and one above, given {weights}")
        for name, number, least in (
            ("count", 0 if count is None else count, 0),
            ("seed", seed, 0),
            ("images_per_pass", images_per_pass, 1),
        ):
            if number < least:
                raise UsageError(f"{name} should be {least} or more, given {number}")
        self.generator, self.count, self.seed = generator, count, seed
        self.images_per_pass = images_per_pass
        self.embeddings = embeddings.detach().float().to(device_of(generator))
        self.shares: list[float] = (shares / shares.sum()).tolist()

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        worker, device = get_worker_info(), device_of(self.generator)
        if worker is not None and device.type != "cpu":
            raise UsageError(
                f"the generator is on {device}, which DataLoader's workers cannot share: "
                "use num_workers=0, which draws the images on the device all the same"
            )
        mine, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        chosen = self._choices()
        for number in count_up():
            start = number * self.images_per_pass
            size = self.images_per_pass
            if self.count is not None:
                size = min(size, self.count - start)
            if size <= 0:
                return
            which = list(islice(chosen, size))
            if number % workers == mine:
                yield from zip(self._draw(start, which), which, strict=True)

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """The first ``count`` images ``[count, 3, R, R]`` and their embeddings' rows ``[count]``.

        Both are on the generator's device. Raises ``UsageError`` for a ``count`` below 1 or above
        the sampler's own.
        """
        most = float("inf") if self.count is None else self.count
        if not 1 <= count <= most:
            raise UsageError(f"count should lie in 1 to {most}, given {count}")
        images, which = zip(*islice(self, count), strict=True)
        return torch.stack(images), torch.tensor(which, device=device_of(self.generator))

    def _choices(self) -> Iterator[int]:
        """Rows of ``embeddings``, image by image.

        The house-monotone quota method: of those that another image would not take beyond their
        share rounded up, the one with the most share per image. After n images, each has
        its share of n rounded down or up (Balinski and Young, "The quota method of apportionment",
        American Mathematical Monthly 82, 1975).
        """
        taken = [0] * len(self.shares)
        for total in count_up(1):
            row = max(
                (k for k, share in enumerate(self.shares) if taken[k] < share * total - 1e-9),
                key=lambda k: self.shares[k] / (taken[k] + 1),
            )
            taken[row] += 1
            yield row

    @torch.no_grad()
    def _draw(self, start: int, which: Sequence[int]) -> tuple[Tensor, ...]:
        device, width = device_of(self.generator), self.generator.spec.latent_dim
        rows = [torch.randn(1, width, generator=self._stream(start + i)) for i in range(len(which))]
        latents = torch.stack(rows).to(device)  # [N, 1, D]
        return self.generator(self.embeddings[list(which)], latents).float().unbind()

    def _stream(self, image: int) -> torch.Generator:
        """The random numbers of one image, drawn on the CPU so that every device sees the same."""
        digest = hashlib.blake2b(f"{self.seed}/sampler/{image}".encode(), digest_size=8).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
