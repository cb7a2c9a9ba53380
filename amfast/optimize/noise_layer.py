"""The released code's noise layer: a linear map of the latents, learned beside the embedding."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from amfast.optimize.trials import Trial


def noise_layer_size(latent_dim: int) -> int:
    """How many numbers a trial's layer has: a square matrix and a bias."""
    return latent_dim * (latent_dim + 1)


def initial_noise_layers(trials: Sequence[Trial], latent_dim: int) -> Tensor:
    """Layers before their first step, ``[T, noise_layer_size]`` in fp32, on the CPU.

    Row by row the weights and then the bias, drawn as ``torch.nn.Linear`` draws them: uniformly,
    at most ``1 / sqrt(latent_dim)``.
    """
    bound = 1 / math.sqrt(latent_dim)
    layers = torch.empty(len(trials), noise_layer_size(latent_dim))
    for row, trial in zip(layers, trials, strict=True):
        row.uniform_(-bound, bound, generator=trial.random("noise layer"))
    return layers


def apply_noise_layers(layers: Tensor, latents: Tensor) -> Tensor:
    """``[T, noise_layer_size]`` and latents ``[T, Z, D]`` -> latents ``[T, Z, D]``."""
    dim = latents.shape[-1]
    weight, bias = layers.split([dim * dim, dim], dim=1)
    return torch.baddbmm(bias[:, None], latents.to(layers), weight.unflatten(1, (dim, dim)).mT)
