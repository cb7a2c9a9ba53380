"""What amfast is measured against: the loop that published code runs, and its strongest plain form.

Both optimise one trial at a time with ``torch.optim.Adam`` on the BigGAN of
``amfast.generators.reference``. They use nothing of the engine, the frozen generator or the ops.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amfast.classifiers.protocol import ClassifierSpec
from amfast.generators.reference import BigGAN
from bench.models import fold_spectral_norms

#: Advances a trial by one step and returns its embedding ``[E]``.
Step = Callable[[], Tensor]


def plain_loop(
    model: BigGAN,
    classifier: nn.Module,
    spec: ClassifierSpec,
    *,
    start: Tensor,
    latents: Tensor,
    target: int,
    lr: float = 0.1,
) -> Step:
    """As published code runs it: spectral norm in every forward, gradients for every weight, fp32.

    ``start`` is ``[E]``, ``latents`` ``[Z, D]``; the loop runs on their device. The weights'
    gradients are computed and thrown away, since nothing says that they are not wanted.
    """
    device = latents.device
    model = copy.deepcopy(model).to(device).eval().requires_grad_(True)
    classifier = copy.deepcopy(classifier).to(device).eval().requires_grad_(True)
    weights = [*model.parameters(), *classifier.parameters()]

    def loss(embedding: Tensor) -> Tensor:
        images = model(embedding.expand(len(latents), -1), latents)
        logits = classifier(classifier_input(images, spec))
        return -F.log_softmax(logits, dim=1)[:, target].mean()

    return _loop(loss, start, lr, weights)


def frozen_compiled_loop(
    model: BigGAN,
    classifier: nn.Module,
    spec: ClassifierSpec,
    *,
    start: Tensor,
    latents: Tensor,
    target: int,
    lr: float = 0.1,
    dtype: torch.dtype = torch.float32,
) -> Step:
    """The strong opponent: weights frozen, spectral norm folded, embedding to loss compiled.

    In 16 bits the weights are cast once, which spares the casts that autocast would put into every
    step, and on CUDA the maps are channels_last, as its matrix units want them. The embedding,
    Adam and the loss stay in fp32. In fp16 the loss is scaled, which Adam does not see.
    """
    device = latents.device
    model = copy.deepcopy(model).to(device).eval().requires_grad_(False)
    layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
    fold_spectral_norms(model, dtype, layout)
    model = model.to(dtype)
    classifier = copy.deepcopy(classifier).eval().requires_grad_(False)
    classifier = classifier.to(device, dtype).to(memory_format=layout)  # type: ignore[call-overload]
    latents = latents.to(dtype)
    scale = 1024.0 if dtype == torch.float16 else 1.0

    def loss(embedding: Tensor) -> Tensor:
        images = model(embedding.to(dtype).expand(len(latents), -1), latents)
        logits = classifier(classifier_input(images, spec))
        return -scale * F.log_softmax(logits.float(), dim=1)[:, target].mean()

    return _loop(torch.compile(loss, dynamic=False), start, lr, [])


def classifier_input(images: Tensor, spec: ClassifierSpec) -> Tensor:
    """Images ``[N, 3, H, W]`` in [-1, 1] -> ``[N, 3, size, size]``, resized and normalised."""
    if images.shape[-2:] != (spec.size, spec.size):
        images = F.interpolate(images, (spec.size, spec.size), mode="bilinear")
    shift, factor = _normalisation(spec.mean, spec.std, images.dtype, images.device)
    return torch.addcmul(shift, images, factor)


@lru_cache(maxsize=64)
def _normalisation(
    mean: tuple[float, ...], std: tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """((images + 1) / 2 - mean) / std as shift + images * factor, ``[3, 1, 1]`` each.

    Kept, since copying numbers to a device waits for it.
    """
    means, stds = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (mean, std))
    shift, factor = (0.5 - means) / stds, 0.5 / stds
    return shift.to(device, dtype), factor.to(device, dtype)


def _loop(
    loss: Callable[[Tensor], Tensor], start: Tensor, lr: float, weights: list[nn.Parameter]
) -> Step:
    embedding = start.clone().requires_grad_()
    adam = torch.optim.Adam([embedding], lr=lr)

    def step() -> Tensor:
        adam.zero_grad()
        for weight in weights:
            weight.grad = None
        loss(embedding).backward()
        adam.step()
        return embedding.detach()

    return step
