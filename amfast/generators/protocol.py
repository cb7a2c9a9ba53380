"""What amfast asks of a class-conditional generator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@dataclass(frozen=True)
class GeneratorSpec:
    """The facts about a generator that its users need.

    ``clip_range`` is where embeddings are projected after every step: the range of the pretrained
    ones (paper, section 2). ``labels`` name the rows of ``class_embeddings``. ``fingerprint`` is a
    hash of the weights; everything stored on disk carries it.
    """

    name: str
    resolution: int
    embedding_dim: int
    latent_dim: int
    clip_range: tuple[float, float]
    fingerprint: str
    labels: tuple[str, ...]


@runtime_checkable
class Generator(Protocol):
    """A frozen generator: nothing in it asks for a gradient, only the embeddings given to it do."""

    @property
    def spec(self) -> GeneratorSpec: ...

    @property
    def class_embeddings(self) -> Tensor:
        """The pretrained class embeddings ``[num_classes, E]``, fp32, on the generator's device."""
        ...

    def prepare_latents(self, latents: Tensor) -> Any:
        """What depends on the latents ``[T, Z, D]`` alone, computed once per resample."""
        ...

    def __call__(self, embeddings: Tensor, latents: Any) -> Tensor:
        """Embeddings ``[T, E]`` and latents (prepared or not) -> images ``[T*Z, 3, H, W]``.

        Images lie in [-1, 1], trial by trial: row ``t * Z + i`` shows latent i of trial t.
        """
        ...


@runtime_checkable
class PreTanhGenerator(Protocol):
    """A generator whose images are the tanh of what ``pre_tanh`` gives for the same arguments."""

    def pre_tanh(self, embeddings: Tensor, latents: Any) -> Tensor:
        """``[T*Z, 3, H, W]``, of any range and floating dtype."""
        ...


def device_of(generator: Generator) -> torch.device:
    return generator.class_embeddings.device
