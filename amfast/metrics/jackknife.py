"""How far FID would move over other images: the delete-a-group jackknife, from streamed moments."""

from __future__ import annotations

import torch
from torch import Tensor

from amfast.metrics.features import check_features
from amfast.optimize.parallel import side_by_side

#: Groups that the images are dealt into; each takes ``8 D^2`` bytes and one decomposition.
GROUPS = 10
#: The 97.5 % quantile of Student's t with one degree of freedom less than there are groups.
_T = 2.262157
#: Rows that are taken in at once: adding up ``[D, D]`` for a few rows costs as much as for many.
_AT_ONCE = 2048


class GroupedSums:
    """Sums of features and of their products, of ten groups that images are dealt into in turn.

    Features come batch by batch and are not kept. Where every class has a multiple of ten images,
    every group has as many of each class, and leaving one out keeps the classes' shares. In float64
    on the features' device, around the mean of the first images, so that nothing cancels where the
    mean is large.
    """

    def __init__(self) -> None:
        self.images = 0
        self._shift = self._sums = self._products = torch.empty(0)
        self._waiting: list[Tensor] = []

    def update(self, features: Tensor) -> None:
        """Add a batch ``[N, D]``; N may be 0. Raises ``UsageError`` as ``check_features`` does."""
        check_features("features", features)
        self._waiting.append(features.detach())
        self.images += len(features)
        if sum(map(len, self._waiting)) >= _AT_ONCE:
            self._take_in()

    def interval(self, value: float, mean: Tensor, root: Tensor) -> tuple[float, float] | None:
        """The 95 % interval of the Frechet distance ``value`` of these images to another set.

        That set has this mean ``[D]`` and covariance ``root @ root.T``, ``[D, r]``; it stays as it
        is. Each group in turn is left out, and the distances of the rest to the set give the
        variance (Shao and Wu, "A general theory for jackknife variance estimation", Annals of
        Statistics 1989; with as many groups, of Student's t). None for fewer than two images to a
        group.

        Against drawing images anew (the bootstrap), on normal distributions in 32 dimensions where
        the truth is known: over 20 to 2,000 images it holds the mean distance over as many images
        in 94 to 100 % of cases, the bootstrap in 91 to 100 %. With several classes it is 1.1 to 1.2
        times as wide as the true spread, which knows the classes' shares, the bootstrap 1.5 to 2.1
        times; where both sets are of one distribution, up to 1.6 and 2.1 times. It takes 10
        decompositions of symmetric ``[r, r]``, the bootstrap hundreds.
        """
        if self.images < 2 * GROUPS:
            return None
        self._take_in()
        sums, products = self._sums.sum(dim=0), self._products.sum(dim=0)
        around = mean.to(self._shift) - self._shift
        root = root.to(self._shift)
        spread = root.square().sum()

        def without(group: int) -> Tensor:
            """The distance of all images but a group's, as ``frechet_distance`` has it."""
            left = self.images - len(range(group, self.images, GROUPS))
            own = (sums - self._sums[group]) / left
            scatter = (products - self._products[group]).addr_(own, own, alpha=-left)
            covariance = scatter / (left - 1)
            eigenvalues = torch.linalg.eigvalsh(root.T @ covariance @ root)
            noise = eigenvalues[-1] * len(eigenvalues) * torch.finfo(torch.float64).eps
            overlap = eigenvalues[eigenvalues > noise].sqrt().sum()
            apart = (own - around).square().sum()
            distance: Tensor = apart + covariance.trace() + spread - 2 * overlap
            return distance

        with side_by_side(self._shift.device, GROUPS) as run:
            found = torch.stack(run(without, range(GROUPS)))
        variance = (GROUPS - 1) * found.var(correction=0)
        reach = _T * float(variance.sqrt())
        return max(0.0, value - reach), value + reach

    def _take_in(self) -> None:
        """Add what waits to its groups."""
        if not self._waiting:
            return
        rows = torch.cat(self._waiting)
        self._waiting = []
        if not self._sums.numel():
            dim = rows.shape[1]
            self._shift = rows.double().mean(dim=0)
            self._sums = self._shift.new_zeros(GROUPS, dim)
            self._products = self._shift.new_zeros(GROUPS, dim, dim)
        before = self.images - len(rows)
        for group in range(GROUPS):
            mine = rows[(group - before) % GROUPS :: GROUPS].double() - self._shift
            self._sums[group] += mine.sum(dim=0)
            self._products[group].addmm_(mine.T, mine)
