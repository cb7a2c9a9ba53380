"""The frozen form is the reference, rewritten: equal in float64, forward and gradient."""

from __future__ import annotations

import pytest
import torch

from amfast.generators.frozen import FrozenBigGAN
from amfast.generators.frozen_layers import _attend
from amfast.generators.reference import BigGAN, BigGANConfig

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


BIGGAN_128 = BigGANConfig((1536, 1536, 768, 384, 192, 96), attention_block=3, num_classes=1000)
BIGGAN_256 = BigGANConfig((1536, 1536, 768, 768, 384, 192, 96), attention_block=4, num_classes=1000)


@pytest.mark.parametrize(
    ("config", "most"), [(BIGGAN_128, 65e6 / 4), (BIGGAN_256, 65e6)], ids=["128", "256"]
)
def test_bytes_kept_for_the_backward(config: BigGANConfig, most: float) -> None:
    """Of the full-size model in bf16, per image, weights aside; 379 MB eagerly for 256 pixels."""
    meta = torch.device("meta")
    with meta:
        model = BigGAN(config).eval()
        embedding = torch.zeros(1, config.embedding_dim).requires_grad_()
        latents = torch.zeros(1, 1, config.latent_dim)
    frozen = FrozenBigGAN(model, torch.bfloat16, meta)
    prepared = frozen.prepare_latents(latents)
    weights = {buffer.untyped_storage()._cdata for buffer in frozen.buffers()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        images = frozen(embedding, prepared)
    assert images.shape == (1, 3, config.resolution, config.resolution)
    assert sum(kept.values()) <= most


def test_attention_in_parts_equals_attention_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amfast.generators.frozen_layers._QUERIES", 5)
    shapes = ((2, 12, 3), (2, 7, 3), (2, 7, 4))
    q, k, v = (torch.randn(s, dtype=torch.float64).requires_grad_() for s in shapes)
    plain = (q @ k.transpose(1, 2)).softmax(dim=-1) @ v
    d = torch.randn_like(plain)
    wanted = torch.autograd.grad(plain, (q, k, v), d)
    found = torch.autograd.grad(_attend(q, k, v), (q, k, v), d)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
