from __future__ import annotations

import pytest
import torch

import amfast
from amfast.discriminator import load_discriminator
from amfast.errors import RunError
from amfast.experiments.gan_loss import finetune_embedding


def score(
    generator: amfast.Generator, embedding: torch.Tensor, discriminator: torch.nn.Module
) -> float:
    latents = torch.randn(1, 32, generator.spec.latent_dim, generator=torch.Generator())
    with torch.no_grad():
        images = generator(embedding[None], latents)
        return float(discriminator(images, torch.full((32,), 3)).mean())


def test_the_embedding_alone_learns_without_real_images() -> None:
    generator = amfast.load_generator("embedded", device="cpu")
    discriminator = load_discriminator("embedded", device="cpu")
    before = {name: value.clone() for name, value in discriminator.state_dict().items()}
    start = generator.class_embeddings[3]
    found = finetune_embedding(
        generator, discriminator, start, 3, real=None, batch=8, learning_rate=0.03
    )
    assert score(generator, found, discriminator) > score(generator, start, discriminator)
    for name, value in discriminator.state_dict().items():
        assert torch.equal(value, before[name])
    low, high = generator.spec.clip_range
    assert low <= found.min() and found.max() <= high
    again = finetune_embedding(
        generator, discriminator, start, 3, real=None, batch=8, learning_rate=0.03
    )
    assert torch.equal(again, found)


def test_the_discriminator_learns_from_real_images() -> None:
    generator = amfast.load_generator("embedded", device="cpu")
    discriminator = load_discriminator("embedded", device="cpu")
    before = discriminator.linear.weight.clone()
    asked: list[int] = []

    def real(count: int) -> torch.Tensor:
        asked.append(count)  # pictures that the discriminator takes for generated ones
        with torch.no_grad():
            return generator(generator.class_embeddings[3:4], torch.randn(1, count, 20))

    finetune_embedding(
        generator, discriminator, generator.class_embeddings[3], 3, real=real, iterations=2, batch=4
    )
    assert asked == [4, 4]
    assert not torch.equal(discriminator.linear.weight, before)


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    generator = amfast.load_generator("embedded", device="cpu")
    discriminator = load_discriminator("embedded", device="cpu")
    discriminator.linear.weight.data.fill_(torch.nan)
    start = generator.class_embeddings[3]
    with pytest.raises(RunError, match="GAN loss of class 3 is nan"):
        finetune_embedding(generator, discriminator, start, 3, real=None, batch=2)
