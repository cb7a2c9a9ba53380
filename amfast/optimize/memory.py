"""How many images go through the networks at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from amfast.generators.protocol import Generator, device_of

#: Share of a CUDA device's free memory that one pass's saved tensors may take; the rest is for
#: workspaces and the pass's own temporaries.
_SHARE = 0.6
#: Bytes that a pass keeps for the backward, per pixel of an image: a first bound for any generator.
_BYTES_PER_PIXEL = 12_000


@dataclass(frozen=True)
class Pass:
    """The trials and latents that share one trip through the generator and the classifier."""

    trials: slice
    latents: slice


def plan_passes(trials: int, latents: int, images_per_pass: int) -> list[Pass]:
    """Cut ``trials x latents`` images into passes of at most ``images_per_pass``.

    Whole trials share a pass as long as they fit; a trial with more latents than a pass holds is
    spread over several, and its gradient is their sum.
    """
    rows = max(1, images_per_pass // latents)
    columns = min(latents, images_per_pass)
    return [
        Pass(slice(t, min(t + rows, trials)), slice(z, min(z + columns, latents)))
        for t in range(0, trials, rows)
        for z in range(0, latents, columns)
    ]


def images_per_pass(generator: Generator, latents: int) -> int:
    """The default bound on a pass.

    On the CPU one trial's latents: more images fall out of the caches and gain nothing, and with
    every pass of the same shape a trial's numbers cannot depend on its batch-mates. On CUDA as many
    trials as the free memory holds.
    """
    device = device_of(generator)
    if device.type == "cpu":
        return latents
    free, _ = torch.cuda.mem_get_info(device)
    images = int(free * _SHARE) // (_BYTES_PER_PIXEL * generator.spec.resolution**2)
    return max(latents, images // latents * latents)


def saved_bytes_per_image(
    generator: Generator, objective: Callable[[Tensor, Tensor], Tensor]
) -> int:
    """Bytes that autograd keeps for the backward of one more image, counted as unique storages.

    The difference between a pass of two images and one of four, so that weights drop out.
    """

    def saved(images: int) -> int:
        storages: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        embedding = generator.class_embeddings[:1].clone().requires_grad_()
        latents = torch.zeros(1, images, generator.spec.latent_dim, device=embedding.device)
        prepared = generator.prepare_latents(latents)
        targets = torch.zeros(images, dtype=torch.int64, device=embedding.device)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            kept = objective(generator(embedding, prepared), targets)
        del kept
        return sum(storages.values())

    return (saved(4) - saved(2)) // 2
