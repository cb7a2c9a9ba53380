"""Precision, recall, density and coverage: whether images lie among the real ones, and around all.

Each real image, and each other one, has a sphere that reaches to its k-th neighbour in its own set.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from amfast.errors import UsageError
from amfast.metrics.features import FeatureNetwork, check_features, measure_name
from amfast.metrics.measure import Measure, measure_mean

#: prdc's, and Naeem et al.'s.
NEAREST = 5

#: Squared distances held at once.
_DISTANCES = 1 << 22

#: Squared distances this close, relatively, are equal: rounding decides no strict comparison.
_TIE = 1e-9


@dataclass(frozen=True)
class Neighbours:
    """What is known of every image, float64: the four metrics are means of these.

    ``precision`` ``[F]`` is 1 for an image within some real image's sphere, else 0; ``density``
    ``[F]`` the number of such spheres over k. ``recall`` ``[R]`` is 1 for a real image within some
    image's sphere, ``coverage`` ``[R]`` for one with an image within its own. ``empty`` counts the
    spheres of either set that are points, because k others have the same features.
    """

    precision: Tensor
    recall: Tensor
    density: Tensor
    coverage: Tensor
    empty: int


def neighbours(images: Tensor, real: Tensor, *, k: int = NEAREST) -> Neighbours:
    """Features ``[F, D]`` of images against those ``[R, D]`` of real ones.

    Precision and recall, in [0, 1], as Kynkaanniemi et al. improved them ("Improved precision and
    recall metric for assessing generative models", NeurIPS 2019, section 2; k = 3 there); density,
    from 0 and about 1 for equal distributions, and coverage, in [0, 1], by Naeem et al. ("Reliable
    fidelity and diversity metrics for generative models", ICML 2020, section 3). Higher is better.
    A sphere is open, as in the prdc package: what lies on it is outside.

    Distances are worked out in float64, on the images' device, for some rows at a time.

    Raises:
        UsageError: another shape or dtype, NaN or infinity, features of different widths, or k not
            from 1 to less than the images of either set.
    """
    check_features("features", images)
    check_features("the real features", real)
    if images.shape[1] != real.shape[1]:
        raise UsageError(
            f"the features are {images.shape[1]} wide and the real ones {real.shape[1]}; both must "
            "be of one network."
        )
    fewer = min(len(images), len(real))
    if not 1 <= k < fewer:
        raise UsageError(
            f"k is {k} and the smaller set holds {fewer}; k must be at least 1, and every image "
            "needs k others."
        )
    fakes, reals = images.detach().double(), real.detach().to(images.device).double()
    centre = reals.mean(dim=0)  # near the data, squares are small and cancel little
    fakes, reals = fakes - centre, reals - centre
    fake_radii, real_radii = _radii(fakes, k), _radii(reals, k)
    density = torch.zeros(len(fakes), dtype=torch.float64, device=fakes.device)
    recall, coverage = [], []
    for part, radii in zip(_parts(reals, fakes), _parts(real_radii, fakes), strict=True):
        distances = _squared_distances(part, fakes)
        within = distances < radii[:, None]
        density += within.sum(dim=0)
        coverage.append(within.any(dim=1))
        recall.append((distances < fake_radii).any(dim=1))
    return Neighbours(
        precision=(density > 0).double().cpu(),
        recall=torch.cat(recall).double().cpu(),
        density=density.cpu() / k,
        coverage=torch.cat(coverage).double().cpu(),
        empty=int((fake_radii == 0).sum() + (real_radii == 0).sum()),
    )


def measure_neighbours(
    images: Tensor, real: Tensor, network: FeatureNetwork, *, k: int = NEAREST, seed: int = 0
) -> list[Measure]:
    """Precision, recall, density and coverage, in this order, with their intervals.

    The images that a metric is a mean over are drawn anew (real ones for recall and coverage, which
    are their n), the spheres stay. Arguments and errors are those of ``neighbours``.
    """
    found = neighbours(images, real, k=k)
    note = (
        f"{found.empty} of {len(images) + len(real)} images have the features of {k} others: "
        "nothing lies within their spheres."
        if found.empty
        else ""
    )
    columns = {
        "precision": found.precision,
        "recall": found.recall,
        "density": found.density,
        "coverage": found.coverage,
    }
    return [
        measure_mean(
            measure_name(name, network.name),
            values,
            unit="images",
            seed=seed,
            weights=network.fingerprint,
            note=note,
        )
        for name, values in columns.items()
    ]


def _radii(rows: Tensor, k: int) -> Tensor:
    """The squared distance of each row to its k-th neighbour among the others, less a tie."""
    # The row itself is among them, at distance 0. Several times faster than kthvalue.
    nearest = [
        _squared_distances(part, rows).topk(k + 1, dim=1, largest=False).values[:, -1]
        for part in _parts(rows, rows)
    ]
    return torch.cat(nearest) * (1 - _TIE)


def _parts(rows: Tensor, others: Tensor) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = rows.split(max(1, _DISTANCES // len(others)))
    return parts


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """``[A, D]`` and ``[B, D]``, float64 -> ``[A, B]``, 0 for what differs by rounding alone."""
    norms = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1)
    distances = norms - 2 * (a @ b.T)
    rounding = 4 * a.shape[1] ** 0.5 * torch.finfo(a.dtype).eps
    return distances.where(distances > rounding * norms, 0)
