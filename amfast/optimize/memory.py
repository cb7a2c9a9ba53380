"""How many images go through the networks at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from amfast.generators.protocol import Generator, device_of
from amfast.optimize.objective import Objective, evaluate

#: Share of a CUDA device's free memory that a step may plan with; the rest is for workspaces,
#: fragmentation and whatever else runs there.
_SHARE = 0.8
#: Pixels times channels of a pass's largest map, at up to 128 channels: libraries index with 32
#: bits, and more images at once than this bring no device to a better use.
_ELEMENTS = 2**31 // 128


@dataclass(frozen=True)
class Pass:
    """The trials and latents that share one trip through the generator and the classifier."""

    trials: slice
    latents: slice


def plan_passes(trials: int, latents: int, images_per_pass: int, together: int = 1) -> list[Pass]:
    """Cut ``trials x latents`` images into passes of at most ``images_per_pass``.

    Whole trials share a pass as long as they fit, as evenly as they can; a trial with more latents
    than a pass holds is spread over several, ``together`` of them never, and its gradient is their
    sum.
    """
    columns = max(together, min(latents, images_per_pass) // together * together)
    most = max(1, images_per_pass // latents)
    rows = math.ceil(trials / math.ceil(trials / most))
    return [
        Pass(slice(t, min(t + rows, trials)), slice(z, min(z + columns, latents)))
        for t in range(0, trials, rows)
        for z in range(0, latents, columns)
    ]


def images_per_pass(generator: Generator, objective: Objective, latents: int) -> int:
    """The default bound on a pass.

    On the CPU one trial's latents: more images fall out of the caches and gain nothing, and with
    every pass of the same shape a trial's numbers cannot depend on its batch-mates. On CUDA as many
    trials as the free memory holds, by the measured need of an image.
    """
    device = device_of(generator)
    if device.type == "cpu":
        return latents

    def peak(images: int) -> int:
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        leaf, rows = _one_trial(generator, objective, images)
        torch.autograd.grad(rows.sum(), leaf)
        return torch.cuda.max_memory_allocated(device) - before

    try:
        peak(8)  # compilers and libraries take what they need once
        per_image = (peak(8) - peak(4)) // 4
        per_image = max(per_image, saved_bytes_per_image(generator, objective))
    except torch.OutOfMemoryError:
        return latents  # the first step will halve it until it fits
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    most = min(int(free * _SHARE) // per_image, _ELEMENTS // generator.spec.resolution**2)
    return max(1, most // latents) * latents


def saved_bytes_per_image(generator: Generator, objective: Objective) -> int:
    """Bytes that autograd keeps for the backward of one more image, counted as unique storages.

    The difference between a pass of two images and one of four, so that weights drop out.
    """

    def saved(images: int) -> int:
        storages: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            kept = _one_trial(generator, objective, images)
        del kept
        return sum(storages.values())

    return (saved(4) - saved(2)) // 2


def _one_trial(generator: Generator, objective: Objective, images: int) -> tuple[Tensor, Tensor]:
    """An embedding and the objective ``[images]`` of its images on as many latents."""
    leaf = generator.class_embeddings[:1].clone().requires_grad_()
    latents = torch.zeros(1, images, generator.spec.latent_dim, device=leaf.device)
    targets = torch.zeros(images, dtype=torch.int64, device=leaf.device)
    prepared = generator.prepare_latents(latents)
    gaps = torch.ones(images // 2, device=leaf.device)
    return leaf, evaluate(objective, generator, leaf, prepared, targets, gaps)[1]
