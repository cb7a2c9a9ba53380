"""Adam on the rows of one matrix, each row an optimisation of its own."""

from __future__ import annotations

import torch
from torch import Tensor


class RowAdam:
    """``torch.optim.Adam`` with its default betas and eps and no decay, row by row.

    A row that is switched off keeps its embedding, its moments and its step count. Source: Kingma
    and Ba, "Adam: A Method for Stochastic Optimization" (ICLR 2015), algorithm 1.
    """

    def __init__(
        self,
        mean: Tensor,
        square: Tensor,
        steps: Tensor,
        learning_rate: float,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        """Go on from moments ``[T, E]`` and step counts ``[T, 1]`` (float64): zeros at first."""
        self.learning_rate, self.betas, self.eps = learning_rate, betas, eps
        self.mean, self.square, self.steps = mean, square, steps

    def step(self, embeddings: Tensor, gradient: Tensor, active: Tensor) -> Tensor:
        """Return the embeddings ``[T, E]`` after one step; ``active`` ``[T]`` chooses the rows."""
        beta1, beta2 = self.betas
        on = active[:, None]
        self.steps = self.steps + on
        self.mean = torch.where(on, self.mean.lerp(gradient, 1 - beta1), self.mean)
        square = torch.addcmul(self.square * beta2, gradient, gradient, value=1 - beta2)
        self.square = torch.where(on, square, self.square)
        correction1 = (1 - beta1**self.steps).to(embeddings.dtype)
        correction2 = (1 - beta2**self.steps).sqrt().to(embeddings.dtype)
        size = self.learning_rate / correction1
        moved = embeddings - size * self.mean / (self.square.sqrt() / correction2 + self.eps)
        return torch.where(on, moved, embeddings)
