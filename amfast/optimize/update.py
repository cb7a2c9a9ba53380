"""What a step does to the embeddings: Adam row by row, the clip, and the finite check."""

from __future__ import annotations

import torch
from torch import Tensor

from amfast.optimize.slots import Slots

_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8


def update(
    slots: Slots,
    log_prob: Tensor,
    gradient: Tensor,
    *,
    learning_rate: float,
    clip_range: tuple[float, float],
) -> None:
    """Advance every row by one step, in place, given ``log_prob`` ``[T, Z]`` and its mean's
    ``gradient`` ``[T, E]``.

    Adam with its default betas and eps and no decay (Kingma and Ba, ICLR 2015, algorithm 1),
    ascending, then the projection to ``clip_range`` (paper, section 2).

    A row whose log-probabilities are not finite fails: its embedding and moments stay as they are.
    Where they are finite and the gradient alone is not, 16-bit numbers have run out of range: the
    row skips the step and halves its loss scale, and fails once that is down to one.
    """
    known = slots.active & _finite(log_prob)
    usable = known & _finite(gradient)
    moved = _adam(slots, gradient, usable[:, None], learning_rate).clamp(*clip_range)
    done = usable & _finite(moved)
    slots.embeddings.copy_(torch.where(done[:, None], moved, slots.embeddings))

    out_of_range = known & ~usable & (slots.loss_scale > 1)
    slots.loss_scale.copy_(torch.where(out_of_range, slots.loss_scale / 2, slots.loss_scale))
    torch.logical_or(done, out_of_range, out=slots.active)

    means = torch.stack([log_prob.mean(dim=1), log_prob.exp().mean(dim=1)], dim=1)  # [T, 2]
    now = torch.where(slots.active[:, None], means, torch.nan).to(slots.history)
    at = slots.step[:, None, None].expand(-1, 1, 2)  # [T, 1, 2]
    slots.history.scatter_(1, at, now[:, None])
    slots.step.add_(1)


def _adam(slots: Slots, gradient: Tensor, on: Tensor, learning_rate: float) -> Tensor:
    """The embeddings after Adam's step; where ``on`` ``[T, 1]`` is false, moments stay."""
    ascent = torch.where(on, gradient, 0.0)
    slots.adam_steps.add_(on)
    share = on.to(ascent)  # 1 where the row moves, else 0
    slots.adam_mean.lerp_(ascent, share * (1 - _BETA1))
    slots.adam_square.mul_(1 - share * (1 - _BETA2))
    slots.adam_square.addcmul_(ascent, ascent, value=1 - _BETA2)
    size = (learning_rate / (1 - _BETA1**slots.adam_steps)).to(ascent)
    root = (1 - _BETA2**slots.adam_steps).sqrt().to(ascent)
    return slots.embeddings + size * slots.adam_mean / (slots.adam_square.sqrt() / root + _EPS)


def _finite(rows: Tensor) -> Tensor:
    """Which rows of ``[T, N]`` hold finite numbers alone; zero times anything else is NaN."""
    return (rows * 0).sum(dim=1) == 0
