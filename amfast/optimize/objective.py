"""What a trial maximises: the mean over latents of log P(y | G(c, z)) (paper, equation 1)."""

from __future__ import annotations

from torch import Tensor

from amfast.classifiers.protocol import Classifier, to_classifier_input
from amfast.ops import target_log_prob


class TargetLogProb:
    """Images ``[N, 3, H, W]`` in [-1, 1] and targets ``[N]`` -> log-probabilities ``[N]``, fp32."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        logits = self.classifier(to_classifier_input(images, self.classifier.spec))
        return target_log_prob(logits.float(), targets)
