"""What an embedding is worth, against the same worked out from images and logits."""

from __future__ import annotations

import pytest
import torch

import amfast
from amfast.classifiers.protocol import to_classifier_input
from amfast.metrics.diversity import pooled_distance, random_pairs
from amfast.metrics.embedding import evaluation_latents, sample_images, score_embedding
from amfast.metrics.ms_ssim import pairwise_ms_ssim
from amfast.optimize.objective import TargetLogProb


@pytest.mark.parametrize("row", [0, 3])
def test_scores_are_those_of_its_images(row: int) -> None:
    generator = amfast.load_generator("embedded", device="cpu")
    classifier = amfast.load_classifier("embedded", device="cpu")
    class_id = classifier.spec.labels.index(generator.spec.labels[0])
    embedding = generator.class_embeddings[row]
    score = score_embedding(
        *(generator, TargetLogProb(classifier), embedding, class_id),
        seed=5,
        images=24,
        pairs=40,
    )
    latents = evaluation_latents(24, generator.spec.latent_dim, 5, torch.device("cpu"))
    images = sample_images(generator, embedding, latents)
    with torch.no_grad():
        probs = classifier(to_classifier_input(images, classifier.spec)).softmax(1)
    pairs = random_pairs(24, 40, 5)
    assert score.accuracy == float((probs.argmax(1) == class_id).double().mean())
    assert score.target_prob == pytest.approx(float(probs[:, class_id].mean()), rel=1e-5)
    assert score.distance == pytest.approx(float(pooled_distance(images, pairs).mean()))
    assert score.ms_ssim == pytest.approx(float(pairwise_ms_ssim(images, pairs).mean()), rel=1e-5)
    assert (score.images, score.pairs) == (24, 40) and score.finite
    assert (score.accuracy > 0.5) == (row == 0)
