"""What a trial maximises: the mean over latents of log P(y | G(c, z)) (paper, equation 1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from amfast.classifiers.protocol import Classifier, ClassifierSpec, to_classifier_input
from amfast.generators.protocol import Generator, PreTanhGenerator
from amfast.ops import target_log_prob, target_log_prob_and_top1
from amfast.ops.resize_to_classifier import ImageInput

#: Images ``[N, 3, R, R]`` and target classes ``[N]`` -> what each image is worth, ``[N]``.
Objective = Callable[[Tensor, Tensor], Tensor]


class TargetLogProb:
    """Images ``[N, 3, H, W]`` in [-1, 1] and targets ``[N]`` -> log-probabilities ``[N]``.

    In float32. With ``input="pre_tanh"`` the images are the tanh of what is given. The classifier
    gets its inputs in the precision that it names by an attribute ``dtype``, otherwise in fp32,
    and brought to it as ``input_spec`` says, by default its own spec.
    """

    def __init__(self, classifier: Classifier, input_spec: ClassifierSpec | None = None) -> None:
        self.classifier = classifier
        self.input_spec = input_spec or classifier.spec

    def __call__(self, images: Tensor, targets: Tensor, input: ImageInput = "image") -> Tensor:
        return target_log_prob(self._logits(images, input), targets).float()

    def with_top1(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The log-probabilities, and each image's most probable class ``[N]``."""
        return target_log_prob_and_top1(self._logits(images, "image"), targets)

    def _logits(self, images: Tensor, input: ImageInput) -> Tensor:
        dtype = getattr(self.classifier, "dtype", torch.float32)
        inputs = to_classifier_input(images, self.input_spec, input=input, dtype=dtype)
        return self.classifier(inputs)


def evaluate(
    objective: Objective, generator: Generator, embeddings: Tensor, latents: Any, targets: Tensor
) -> Tensor:
    """What the images of embeddings ``[T, E]`` and latents are worth, ``[T*Z]``.

    Where the generator can leave its tanh to the objective, the pass that resizes takes it along.
    """
    if isinstance(objective, TargetLogProb) and isinstance(generator, PreTanhGenerator):
        return objective(generator.pre_tanh(embeddings, latents), targets, input="pre_tanh")
    return objective(generator(embeddings, latents), targets)
