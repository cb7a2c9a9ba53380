"""The frozen form is the reference, rewritten: equal in float64, forward and gradient."""

from __future__ import annotations

import torch

from amfast.generators.frozen import FrozenBigGAN
from amfast.generators.reference import BigGAN

CPU = torch.device("cpu")


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(((a - b).abs().max() / b.abs().max()).detach())


def test_forward_and_gradient_equal_the_reference(biggan: BigGAN) -> None:
    reference, config = biggan.double(), biggan.config
    frozen = FrozenBigGAN(reference, torch.float64, CPU)
    embeddings = 0.3 * torch.randn(3, config.embedding_dim, dtype=torch.float64)
    embeddings.requires_grad_()
    latents = torch.randn(3, 4, config.latent_dim, dtype=torch.float64)

    expected = reference(embeddings.repeat_interleave(4, dim=0), latents.flatten(0, 1))
    images = frozen(embeddings, latents)
    assert relative(images, expected) < 1e-12

    weight = torch.randn_like(expected)
    (d_expected,) = torch.autograd.grad((expected * weight).sum(), embeddings)
    (d_embeddings,) = torch.autograd.grad((images * weight).sum(), embeddings)
    assert relative(d_embeddings, d_expected) < 1e-10


def test_prepared_latents_give_the_same_images(biggan: BigGAN) -> None:
    frozen = FrozenBigGAN(biggan, torch.float32, CPU)
    embeddings = torch.randn(2, biggan.config.embedding_dim)
    latents = torch.randn(2, 3, biggan.config.latent_dim)
    prepared = frozen.prepare_latents(latents)
    assert torch.equal(frozen(embeddings, prepared), frozen(embeddings, latents))


def test_an_image_does_not_depend_on_its_batch_mates(biggan: BigGAN) -> None:
    frozen = FrozenBigGAN(biggan, torch.float32, CPU)
    embeddings = 0.3 * torch.randn(5, biggan.config.embedding_dim)
    latents = torch.randn(5, 4, biggan.config.latent_dim)
    together = frozen(embeddings, latents).unflatten(0, (5, 4))
    for row in range(5):
        alone = frozen(embeddings[row : row + 1], latents[row : row + 1])
        torch.testing.assert_close(alone, together[row], rtol=0, atol=1e-5)


def test_the_source_is_left_alone(biggan: BigGAN) -> None:
    before = {key: value.clone() for key, value in biggan.state_dict().items()}
    FrozenBigGAN(biggan, torch.bfloat16, CPU)
    for key, value in biggan.state_dict().items():
        assert value.dtype == before[key].dtype
        assert torch.equal(value, before[key])
