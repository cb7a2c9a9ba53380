"""FID: how far the features of two sets of images are apart, as two normal distributions."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from amfast.errors import RunError, UsageError
from amfast.metrics.features import FeatureNetwork, check_features, measure_name
from amfast.metrics.jackknife import GroupedSums
from amfast.metrics.measure import Measure
from amfast.runs.tensor_file import check_tensors, read_tensors, write_tensors

KIND = "amfast-moments"


@dataclass(frozen=True)
class Moments:
    """Mean ``[D]`` and covariance ``[D, D]`` (divisor n - 1) of features, float64 on the CPU.

    ``images`` is n; ``network`` and ``fingerprint`` say whose features they are.
    """

    images: int
    mean: Tensor
    covariance: Tensor
    network: str
    fingerprint: str

    @cached_property
    def root(self) -> Tensor:
        """``[D, r]``, whose product with its transpose is the covariance; r is the rank.

        What is below the rounding of the largest eigenvalue is no variance but noise, whose square
        root would be far above rounding.
        """
        values, vectors = torch.linalg.eigh(self.covariance)
        noise = values[-1].clamp_min(0) * len(values) * torch.finfo(torch.float64).eps
        kept = values > noise
        root: Tensor = vectors[:, kept] * values[kept].sqrt()
        return root

    def write(self, path: Path) -> None:
        """Write them as safetensors. Raises ``RunError`` where the file cannot be written."""
        tensors = {
            "mean": self.mean,
            "covariance": self.covariance,
            "images": torch.tensor(self.images),
        }
        metadata = {"network": self.network, "network_fingerprint": self.fingerprint}
        write_tensors(path, KIND, tensors, metadata)


def read_moments(path: Path, network: FeatureNetwork) -> Moments:
    """Moments of this network's features.

    Raises ``RunError`` for a file that is missing, truncated, damaged, of another network or kind.
    """
    tensors, metadata = read_tensors(path, KIND)
    dim = tensors["mean"].numel() if "mean" in tensors else 0
    expected: dict[str, tuple[torch.dtype, list[int]]] = {
        "mean": (torch.float64, [dim]),
        "covariance": (torch.float64, [dim, dim]),
        "images": (torch.int64, []),
    }
    check_tensors(path, tensors, expected)
    name, found = metadata.get("network", "unknown"), metadata.get("network_fingerprint")
    if found != network.fingerprint:
        raise RunError(
            f"{path} holds features of {name} (fingerprint {found}), and this is {network.name} "
            f"(fingerprint {network.fingerprint}): take them anew with this network"
        )
    return Moments(
        images=int(tensors["images"]),
        mean=tensors["mean"],
        covariance=tensors["covariance"],
        network=name,
        fingerprint=network.fingerprint,
    )


class RunningMoments:
    """Moments of features that come batch by batch and are not kept.

    They are added up in float64, on the features' device, around the mean so far (Chan, Golub and
    LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979): the
    size of a batch does not matter, and nothing cancels where the mean is large.
    """

    def __init__(self, network: FeatureNetwork) -> None:
        self.network, self.fingerprint = network.name, network.fingerprint
        self.images = 0
        self._mean = self._scatter = torch.empty(0)

    def update(self, features: Tensor) -> None:
        """Add a batch ``[N, D]``; N may be 0.

        Raises ``UsageError`` for another shape or dtype, another D than before, NaN or infinity.
        """
        check_features("features", features)
        if len(features):
            rows = features.detach().double()
            mean = rows.mean(dim=0)
            centred = rows - mean
            self._add(len(rows), mean, centred.T @ centred)

    def merge(self, other: RunningMoments) -> RunningMoments:
        """Those of both sets of images together; neither is changed.

        Raises ``UsageError`` where they are of different networks.
        """
        _check_same(self, other)
        both = copy.copy(self)
        both._mean, both._scatter = self._mean.clone(), self._scatter.clone()
        if other.images:
            both._add(other.images, other._mean, other._scatter)
        return both

    def moments(self) -> Moments:
        """What has come so far; ``UsageError`` for fewer than two images."""
        if self.images < 2:
            raise UsageError(
                f"images so far: {self.images}, and a covariance takes at least 2, or more than "
                "there are features for a distance that means something."
            )
        covariance = self._scatter / (self.images - 1)
        mean = self._mean.to("cpu", copy=True)  # which goes on running
        return Moments(self.images, mean, covariance.cpu(), self.network, self.fingerprint)

    def _add(self, images: int, mean: Tensor, scatter: Tensor) -> None:
        """Take in the mean ``[D]`` and the summed products around it ``[D, D]`` of more images."""
        if not self.images:
            self.images, self._mean, self._scatter = images, mean.clone(), scatter.clone()
            return
        if mean.shape != self._mean.shape:
            raise UsageError(
                f"these features are {len(mean)} wide and those before {len(self._mean)}; all must "
                "come from one network."
            )
        total = self.images + images
        apart = mean.to(self._mean) - self._mean
        share = images / total
        self._scatter += scatter.to(self._mean)
        self._scatter.addr_(apart, apart, alpha=self.images * share)
        self._mean += apart * share
        self.images = total


def frechet_distance(a: Moments, b: Moments) -> float:
    """The squared Frechet distance of two normal distributions; 0 for equal ones, no upper bound.

    ``|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2))`` of means and covariances, which over the
    Inception's features is FID (Heusel et al., "GANs trained by a two time-scale update rule
    converge to a local Nash equilibrium", NeurIPS 2017, equation 6). Lower is closer. With
    ``A = R R^T`` and ``B = S S^T`` the trace of the root is the sum of the roots of the symmetric
    ``R^T B R``'s eigenvalues, which are the singular values of ``R^T S``: real, at least 0, and
    exact to rounding for covariances of any rank. Rounding below 0 is clipped.

    Raises ``UsageError`` for features of different networks or widths.
    """
    _check_same(a, b)
    if a.mean.shape != b.mean.shape:
        raise UsageError(
            f"the features are {len(a.mean)} and {len(b.mean)} wide; both must be of one network."
        )
    apart = (a.mean - b.mean).square().sum()
    overlap = torch.linalg.svdvals(a.root.T @ b.root).sum()
    return max(0.0, float(apart + a.covariance.trace() + b.covariance.trace() - 2 * overlap))


def bias_note(a: Moments, b: Moments) -> str:
    """A sentence where either set has no more images than there are features; empty otherwise."""
    fewer, features = min(a.images, b.images), len(a.mean)
    if fewer > features:
        return ""
    return (
        f"{fewer} images are too few for {features} features: their covariance has rank "
        f"{fewer - 1} at most, which makes the distance too large, by more the fewer there are. "
        "Compare it only with distances over equally many images; 50,000 are usual."
    )


def measure_fid(
    images: Moments, real: Moments, *, groups: GroupedSums | None = None, seed: int = 0
) -> Measure:
    """FID of a set of images against another, with ``bias_note`` as its note.

    Moments alone give no interval. The ``groups`` of the first set's images give one at any width
    (``GroupedSums.interval``): for other images of the first set, as many, beside the same second.
    Nothing in it is drawn, so it depends on no seed.

    Raises ``UsageError`` as ``frechet_distance`` does, and for groups of another number of images.
    """
    value = frechet_distance(images, real)
    low, high = None, None
    if groups is not None:
        if groups.images != images.images:
            raise UsageError(
                f"the groups are of {groups.images} images and the moments of {images.images}; "
                "both must be of the same."
            )
        low, high = groups.interval(value, real.mean, real.root) or (None, None)
    return Measure(
        measure_name("fid", images.network),
        value,
        images.images,
        "images",
        seed,
        images.fingerprint,
        low,
        high,
        note=bias_note(images, real),
    )


def _check_same(a: Moments | RunningMoments, b: Moments | RunningMoments) -> None:
    if a.fingerprint != b.fingerprint:
        raise UsageError(
            f"the features are of {a.network} (fingerprint {a.fingerprint}) and of {b.network} "
            f"(fingerprint {b.fingerprint}); both must be of one network."
        )
