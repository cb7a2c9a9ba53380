"""What a trial maximises: the mean over latents of log P(y | G(c, z)) (paper, equation 1).

AM-D adds an explicit term of diversity (section 3.5).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from amfast.classifiers.protocol import (
    Classifier,
    ClassifierSpec,
    ModuleClassifier,
    to_classifier_input,
)
from amfast.generators.protocol import Generator, PreTanhGenerator
from amfast.metrics.diversity import pool
from amfast.ops import target_log_prob, target_log_prob_and_top1
from amfast.ops.resize_to_classifier import ImageInput
from amfast.optimize.diversity import DiversityTerm, pair_distances

#: Images ``[N, 3, R, R]`` and target classes ``[N]`` -> what each image is worth, ``[N]``.
Objective = Callable[[Tensor, Tensor], Tensor]


class TargetLogProb:
    """Images ``[N, 3, H, W]`` in [-1, 1] and targets ``[N]`` -> log-probabilities ``[N]``.

    In float32. With ``input="pre_tanh"`` the images are the tanh of what is given. The classifier
    gets its inputs in the precision that it names by an attribute ``dtype``, otherwise in fp32,
    and brought to it as ``input_spec`` says, by default its own spec. With a ``diversity`` term an
    image is worth more than its log-probability (``worth``).
    """

    def __init__(
        self,
        classifier: Classifier,
        input_spec: ClassifierSpec | None = None,
        diversity: DiversityTerm | None = None,
    ) -> None:
        self.classifier = classifier
        self.input_spec = input_spec or classifier.spec
        self.diversity = diversity

    def __call__(self, images: Tensor, targets: Tensor, input: ImageInput = "image") -> Tensor:
        return target_log_prob(self.logits(images, input), targets).float()

    def with_top1(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The log-probabilities, and each image's most probable class ``[N]``."""
        return target_log_prob_and_top1(self.logits(images), targets)

    def worth(
        self, images: Tensor, targets: Tensor, gaps: Tensor | None, input: ImageInput = "image"
    ) -> tuple[Tensor, Tensor]:
        """The log-probabilities ``[N]``, and what each image is worth: the same or, with a term of
        diversity, as much more as its pair is apart.

        Images 2k and 2k + 1 are a pair, of latents that are ``gaps[k]`` apart. Over all images of a
        trial the mean of what is added is the paper's lambda times L_D. Pixels need images, not
        what is before their tanh.
        """
        term = self.diversity
        if term is None or gaps is None:
            log_prob = self(images, targets, input)
            return log_prob, log_prob
        if term.phi == "conv5":
            assert isinstance(self.classifier, ModuleClassifier)  # as check_method has seen to
            last = self.classifier.spec.feature_layers[-1:]
            (maps,), logits = self.classifier.with_features(self._inputs(images, input), last)
            features = maps
        else:
            logits = self.logits(images, input)
            features = logits if term.phi == "softmax" else images
        log_prob = target_log_prob(logits, targets).float()
        apart = pair_distances(term.phi, features) / gaps
        return log_prob, log_prob + term.weight * apart.repeat_interleave(2)

    def logits(self, images: Tensor, input: ImageInput = "image") -> Tensor:
        """The classifier's logits ``[N, C]``."""
        return self.classifier(self._inputs(images, input))

    def _inputs(self, images: Tensor, input: ImageInput) -> Tensor:
        dtype = getattr(self.classifier, "dtype", torch.float32)
        return to_classifier_input(images, self.input_spec, input=input, dtype=dtype)


def evaluate(
    objective: Objective,
    generator: Generator,
    embeddings: Tensor,
    latents: Any,
    targets: Tensor,
    gaps: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of the images of embeddings ``[T, E]`` and latents, and their worth.

    ``[T*Z]`` each, and one tensor where there is no term of diversity; then the images themselves,
    pooled to ``[T*Z, 192]``, without a gradient. ``gaps`` ``[T*Z / 2]`` are those of
    ``latent_gaps``. Of an objective that is no ``TargetLogProb`` the worth is what it gives. Where
    the generator can leave its tanh to the objective, the pass that resizes takes it along.
    """
    if not isinstance(objective, TargetLogProb):
        images = generator(embeddings, latents)
        rows = objective(images, targets)
        return rows, rows, pool(images.detach())
    of_pixels = objective.diversity is not None and objective.diversity.phi == "pixel"
    if isinstance(generator, PreTanhGenerator) and not of_pixels:
        images = generator.pre_tanh(embeddings, latents)
        log_prob, worth = objective.worth(images, targets, gaps, input="pre_tanh")
        return log_prob, worth, pool(images.detach().tanh())
    images = generator(embeddings, latents)
    return *objective.worth(images, targets, gaps), pool(images.detach())


def images_together(objective: Objective) -> int:
    """How many images of a trial have to be in one pass."""
    paired = isinstance(objective, TargetLogProb) and objective.diversity is not None
    return 2 if paired else 1
