"""What a step does to what is learned: Adam row by row, the clip, and the finite check."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from amfast.optimize.slots import Slots

_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8


class Update:
    """Advances every row by one step, in place.

    Adam with its default betas and eps (Kingma and Ba, ICLR 2015, algorithm 1), ascending, then
    the projection to ``bounds`` (paper, section 2). ``weight_decay`` times a variable is taken from
    the gradient that Adam sees (coupled decay, as torch.optim.Adam's).

    A row whose log-probabilities or images are not finite fails: its variables and moments stay as
    they are. Where they are finite and the gradient alone is not, 16-bit numbers have run out of
    range: the row skips the step and halves its loss scale, and fails once that is down to one.
    """

    def __init__(
        self,
        steps: int,
        learning_rate: float,
        bounds: tuple[Tensor, Tensor],
        weight_decay: float = 0.0,
    ) -> None:
        """For trials of ``steps`` steps.

        ``bounds`` ``[V]`` each, least and greatest, have the variables' dtype and device.
        """
        self._bounds, self._weight_decay = bounds, weight_decay
        counts = torch.arange(1, steps + 1, dtype=torch.float64)
        size = learning_rate / (1 - _BETA1**counts)
        root = (1 - _BETA2**counts).sqrt()
        #: Adam's two bias corrections by the number of updates made before, ``[steps, 2]``.
        self._corrections = torch.stack([size, root], dim=1).to(bounds[0])
        self._nan = torch.tensor(math.nan, device=bounds[0].device)

    def __call__(self, slots: Slots, log_prob: Tensor, distance: Tensor, gradient: Tensor) -> None:
        """``log_prob`` is ``[T, Z]`` in fp32, ``gradient`` ``[T, V]`` that of its mean over Z.

        ``distance`` ``[T]``, how far apart a trial's images are, is only kept.
        """
        means = torch.stack([log_prob, log_prob.exp()]).mean(dim=2)  # [2, T]
        row = torch.cat([means, distance[None]])  # [3, T]
        known = slots.active & (torch.linalg.vector_norm(row, math.inf, dim=0) < math.inf)

        if self._weight_decay:
            gradient = gradient - self._weight_decay * slots.variables
        mean = slots.adam_mean.lerp(gradient, 1 - _BETA1)
        square = slots.adam_square.lerp(gradient * gradient, 1 - _BETA2)
        size, root = self._corrections[slots.adam_steps].split(1, dim=1)  # [T, 1] each
        spread = square.sqrt() / root + _EPS
        moved = torch.addcdiv(slots.variables, size * mean, spread).clamp(*self._bounds)
        # A gradient that is not finite makes NaN of this, as does a step that is infinite.
        usable = known & (torch.linalg.vector_norm(moved, math.inf, dim=1) < math.inf)
        slots.adam_steps.add_(usable)
        for old, new in (
            (slots.variables, moved),
            (slots.adam_mean, mean),
            (slots.adam_square, square),
        ):
            torch.where(usable[:, None], new, old, out=old)

        out_of_range = (known ^ usable) & (slots.loss_scale > 1)
        slots.loss_scale.div_(out_of_range + 1)
        torch.logical_or(usable, out_of_range, out=slots.active)

        now = torch.where(slots.active, row, self._nan).t()  # [T, 3]
        at = slots.step[:, None, None].expand(-1, 1, len(row))
        slots.history.scatter_(1, at, now[:, None])
        slots.step.add_(1)
