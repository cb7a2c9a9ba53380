"""A generator and a classifier small enough to see through."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from amfast.classifiers.protocol import ClassifierSpec
from amfast.generators.protocol import GeneratorSpec


class LinearGenerator:
    """Images are tanh of a fixed linear map of the embedding plus one of the latent."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        torch.manual_seed(1)
        self.spec = GeneratorSpec("linear", 4, 5, 3, (-0.6, 0.6), "0" * 16, ("a", "b", "c"))
        self.class_embeddings = 0.2 * torch.randn(3, 5)
        self.of_embedding = torch.randn(5, 48, dtype=dtype)
        self.of_latent = 0.3 * torch.randn(3, 48, dtype=dtype)
        self.prepared = 0
        self.largest_pass = 0

    def prepare_latents(self, latents: Tensor) -> Tensor:
        self.prepared += 1
        return latents.to(self.of_latent) @ self.of_latent  # [T, Z, 48]

    def __call__(self, embeddings: Tensor, latents: Tensor) -> Tensor:
        if latents.shape[-1] == self.spec.latent_dim:
            latents = self.prepare_latents(latents)
        self.largest_pass = max(self.largest_pass, latents.shape[0] * latents.shape[1])
        pixels = (embeddings.to(self.of_embedding) @ self.of_embedding)[:, None] + latents
        return torch.tanh(pixels).view(-1, 3, 4, 4)


class LinearClassifier:
    """Logits are a fixed linear map of the pixels."""

    def __init__(self) -> None:
        torch.manual_seed(2)
        self.spec = ClassifierSpec(
            "linear", 4, (0.5,) * 3, (0.5,) * 3, ("a", "b", "c"), fingerprint="1" * 16
        )
        self.weight = torch.randn(48, 3) / math.sqrt(48)

    def __call__(self, inputs: Tensor) -> Tensor:
        return inputs.flatten(1) @ self.weight.to(inputs)


@pytest.fixture
def generator() -> LinearGenerator:
    return LinearGenerator()


@pytest.fixture
def classifier() -> LinearClassifier:
    return LinearClassifier()
