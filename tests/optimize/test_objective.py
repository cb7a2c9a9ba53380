"""The objective on images and on what is still to go through tanh."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import amfast
from amfast.optimize.objective import TargetLogProb, evaluate
from tests.optimize.conftest import LinearClassifier, LinearGenerator

TARGETS = torch.tensor([0, 1, 2, 0, 1, 2])


class Seeing(LinearClassifier):
    """Remembers its inputs; ``dtype`` is what it says that it computes in, where it says so."""

    def __init__(self, dtype: torch.dtype | None) -> None:
        super().__init__()
        if dtype is not None:
            self.dtype = dtype

    def __call__(self, inputs: Tensor) -> Tensor:
        self.inputs = inputs
        return super().__call__(inputs)


def test_tanh_is_left_to_the_objective_where_the_generator_can() -> None:
    """To rounding the same, in value and gradient, and no tanh of the generator's."""
    generator = amfast.load_generator("embedded", device="cpu")
    objective = TargetLogProb(amfast.load_classifier("embedded", device="cpu"))
    embeddings = generator.class_embeddings[:2].clone().requires_grad_()
    latents = torch.randn(2, 3, generator.spec.latent_dim, generator=torch.manual_seed(0))

    images = generator(embeddings, latents)
    torch.testing.assert_close(generator.pre_tanh(embeddings, latents).tanh(), images)
    wanted = objective(images, TARGETS)
    found = evaluate(objective, generator, embeddings, latents, TARGETS)[0]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad(rows.sum(), embeddings)[0] for rows in (found, wanted)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4 * float(gradients[1].abs().max()))

    generator._network.forward = None  # type: ignore[method-assign, assignment]
    assert torch.equal(evaluate(objective, generator, embeddings, latents, TARGETS)[0], found)


def test_other_generators_and_objectives_get_images(
    generator: LinearGenerator, classifier: LinearClassifier
) -> None:
    embeddings, latents = generator.class_embeddings[:2], torch.zeros(2, 3, 3)
    images = generator(embeddings, latents)
    objective = TargetLogProb(classifier)
    found = evaluate(objective, generator, embeddings, latents, TARGETS)[0]
    assert torch.equal(found, objective(images, TARGETS))
    frozen = amfast.load_generator("embedded", device="cpu")
    latents = torch.zeros(1, 6, frozen.spec.latent_dim)
    brightness = evaluate(
        lambda images, targets: images.mean((1, 2, 3)) + targets,
        *(frozen, frozen.class_embeddings[:1], latents, TARGETS),
    )[1]
    assert ((brightness - TARGETS).abs() <= 1).all()


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float64])
def test_the_classifier_gets_the_precision_it_names(dtype: torch.dtype | None) -> None:
    classifier = Seeing(dtype)
    rows = TargetLogProb(classifier)(torch.randn(6, 3, 4, 4).bfloat16(), TARGETS)
    assert classifier.inputs.dtype == (dtype or torch.float32)
    assert rows.dtype == torch.float32
    assert classifier.inputs.is_contiguous(memory_format=torch.channels_last)
