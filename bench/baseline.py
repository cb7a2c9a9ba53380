"""What amfast is measured against: the loop that published code runs, and its strongest plain form.

Both optimise one trial at a time with ``torch.optim.Adam`` on the BigGAN of
``amfast.generators.reference``. They use nothing of the engine, the frozen generator or the ops.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amfast.classifiers.protocol import ClassifierSpec, to_classifier_input
from amfast.generators.reference import BigGAN, SpectralNorm

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

    ``start`` is ``[E]``, ``latents`` ``[Z, D]``. The weights' gradients are computed and thrown
    away, since nothing says that they are not wanted.
    """
    model, classifier = copy.deepcopy(model).eval(), copy.deepcopy(classifier).eval()
    weights = [*model.requires_grad_(True).parameters(), *classifier.parameters()]
    for weight in weights:
        weight.requires_grad_(True)
    return _loop(model, classifier, spec, start, latents, target, lr, weights)


def frozen_compiled_loop(
    model: BigGAN,
    classifier: nn.Module,
    spec: ClassifierSpec,
    *,
    start: Tensor,
    latents: Tensor,
    target: int,
    lr: float = 0.1,
) -> Step:
    """The strong opponent: weights frozen, spectral norm folded, both networks compiled."""
    model, classifier = copy.deepcopy(model).eval(), copy.deepcopy(classifier).eval()
    model.requires_grad_(False)
    classifier.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, SpectralNorm):
            folded = module.normalized_weight().contiguous()
            module.normalized_weight = lambda folded=folded: folded  # type: ignore[method-assign, misc]
    return _loop(
        torch.compile(model, dynamic=False),
        torch.compile(classifier, dynamic=False),
        spec,
        start,
        latents,
        target,
        lr,
        [],
    )


def _loop(
    model: Callable[[Tensor, Tensor], Tensor],
    classifier: Callable[[Tensor], Tensor],
    spec: ClassifierSpec,
    start: Tensor,
    latents: Tensor,
    target: int,
    lr: float,
    weights: list[nn.Parameter],
) -> Step:
    embedding = start.clone().requires_grad_()
    adam = torch.optim.Adam([embedding], lr=lr)

    def step() -> Tensor:
        adam.zero_grad()
        for weight in weights:
            weight.grad = None
        images = model(embedding.expand(len(latents), -1), latents)
        logits = classifier(to_classifier_input(images, spec))
        loss = -F.log_softmax(logits, dim=1)[:, target].mean()
        loss.backward()
        adam.step()
        return embedding.detach()

    return step
