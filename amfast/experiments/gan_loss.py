"""One class embedding finetuned with the original GAN loss: the baseline of section 3.4."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from amfast.discriminator import Discriminator, discriminator_loss
from amfast.errors import RunError
from amfast.generators.protocol import Generator

#: Those that the published 128 model was trained with.
GENERATOR_LR, DISCRIMINATOR_LR = 1e-4, 4e-4


def finetune_embedding(
    generator: Generator,
    discriminator: Discriminator,
    start: Tensor,
    class_id: int,
    *,
    real: Callable[[int], Tensor] | None,
    iterations: int = 10,
    batch: int = 20,
    learning_rate: float = GENERATOR_LR,
    seed: int = 0,
) -> Tensor:
    """The embedding ``[E]`` after ``iterations`` of BigGAN's hinge loss on it alone.

    An iteration is a step of the discriminator on ``batch`` real images and as many generated, and
    then one of the embedding, from ``start`` on, towards a higher score; Adam with betas 0 and
    0.999 for both, and the projection to the range of the pretrained embeddings. ``real`` gives so
    many images ``[N, 3, R, R]`` in [-1, 1]; None leaves the discriminator as it is. ``class_id`` is
    the row of the discriminator's classes. ``discriminator`` is changed. Raises ``RunError`` where
    the loss stops being finite.
    """
    device = start.device
    stream = torch.Generator().manual_seed(seed)
    embedding = start.detach().clone().requires_grad_()
    betas = (0.0, 0.999)
    ascent = torch.optim.Adam([embedding], lr=learning_rate, betas=betas)
    critic: torch.optim.Adam | None = None
    if real is not None:
        discriminator.train().requires_grad_(True)
        critic = torch.optim.Adam(discriminator.parameters(), lr=DISCRIMINATOR_LR, betas=betas)
    ids = torch.full((batch,), class_id, device=device)

    def fake() -> Tensor:
        latents = torch.randn(1, batch, generator.spec.latent_dim, generator=stream).to(device)
        images: Tensor = generator(embedding[None], latents)
        return images.float()

    for iteration in range(iterations):
        if real is not None and critic is not None:
            shown = fake().detach()
            loss = discriminator_loss(
                discriminator(real(batch).to(device), ids), discriminator(shown, ids)
            )
            critic.zero_grad()
            loss.backward()
            critic.step()
        loss = -discriminator(fake(), ids).mean()
        if not loss.isfinite():
            raise RunError(f"the GAN loss of class {class_id} is {loss.item()} at {iteration}")
        ascent.zero_grad()
        loss.backward()
        ascent.step()
        with torch.no_grad():
            embedding.clamp_(*generator.spec.clip_range)
    return embedding.detach()
