"""FID against torch-fidelity on the same features, and worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

from amfast.errors import RunError, UsageError
from amfast.metrics.frechet import (
    Moments,
    RunningMoments,
    bias_note,
    frechet_distance,
    measure_fid,
    read_moments,
)
from amfast.metrics.jackknife import GroupedSums
from tests.metrics.networks import NETWORK, StandIn, drawn


def running(features: Tensor, batch: int | None = None) -> RunningMoments:
    moments = RunningMoments(NETWORK)
    for part in features.split(batch or len(features)):
        moments.update(part)
    return moments


def moments_of(features: Tensor, batch: int | None = None) -> Moments:
    return running(features, batch).moments()


def grouped(features: Tensor) -> GroupedSums:
    groups = GroupedSums()
    groups.update(features)
    return groups


def theirs(a: Tensor, b: Tensor) -> float:
    first, second = (
        {"mu": rows.mean(axis=0), "sigma": np.cov(rows, rowvar=False)}
        for rows in (a.double().numpy(), b.double().numpy())
    )
    return float(fid_statistics_to_metric(first, second, verbose=False)[KEY_METRIC_FID])


def normal(mean: Tensor, variances: Tensor) -> Moments:
    return Moments(10**6, mean, variances.diag(), NETWORK.name, NETWORK.fingerprint)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize(("count", "dim"), [(400, 64), (40, 64), (1000, 5)])
def test_it_is_torch_fidelitys(count: int, dim: int, dtype: torch.dtype) -> None:
    a, b = drawn(count, dim, 1, dtype), drawn(count + 7, dim, 2, dtype)
    found = frechet_distance(moments_of(a, 33), moments_of(b, 50))
    assert found == pytest.approx(theirs(a, b), rel=1e-6)


@pytest.mark.parametrize("smallest", [1e-2, 1e-9])
def test_independent_features_by_hand(smallest: float) -> None:
    sizes = torch.logspace(0, math.log10(smallest), 50, dtype=torch.float64)
    mean = torch.linspace(-1, 1, 50, dtype=torch.float64)
    other = 3 * sizes.flip(0)
    wanted = float(mean.square().sum() + (sizes.sqrt() - other.sqrt()).square().sum())
    found = frechet_distance(normal(mean, sizes), normal(torch.zeros_like(mean), other))
    assert found == pytest.approx(wanted, rel=1e-6)


def test_turned_normals_by_hand() -> None:
    """A = diag(4, 1) and B the same turned by 45 degrees: tr (A B)^(1/2) from det and trace."""
    a = torch.tensor([[4.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    b = torch.tensor([[2.5, 1.5], [1.5, 2.5]], dtype=torch.float64)
    zero = torch.zeros(2, dtype=torch.float64)
    one, two = (replace(normal(zero, zero), covariance=c) for c in (a, b))
    wanted = 10 - 2 * math.sqrt(12.5 + 2 * 4)  # of a 2x2 root: trace^2 = tr(AB) + 2 det(AB)^(1/2)
    assert frechet_distance(one, two) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("count", [2, 20, 500])
def test_equal_sets_are_at_zero(count: int) -> None:
    rows = drawn(count, 64, 3)
    found = frechet_distance(moments_of(rows), moments_of(rows.flip(0), 7))
    assert 0 <= found < 1e-12 * float(moments_of(rows).covariance.trace())


@pytest.mark.parametrize("batch", [1, 7, 64, 299])
def test_the_size_of_a_batch_does_not_change_moments(batch: int) -> None:
    rows = drawn(300, 24, 1) + 1e4  # far from 0, where naive sums of squares cancel
    found, whole = moments_of(rows, batch), moments_of(rows)
    torch.testing.assert_close(found.mean, whole.mean, rtol=1e-14, atol=0)
    scale = whole.covariance.abs().max()
    torch.testing.assert_close(
        found.covariance / scale, whole.covariance / scale, rtol=0, atol=1e-10
    )
    numpys = torch.from_numpy(np.cov(rows.numpy(), rowvar=False))
    torch.testing.assert_close(found.covariance / scale, numpys / scale, rtol=0, atol=1e-10)
    assert (found.images, found.fingerprint) == (300, NETWORK.fingerprint)


@pytest.mark.parametrize("cut", [0, 1, 130, 300])
def test_merged_is_whole(cut: int) -> None:
    rows = drawn(300, 24, 1)
    parts = [
        running(part, 32) if len(part) else RunningMoments(NETWORK)
        for part in (rows[:cut], rows[cut:])
    ]
    both, whole = parts[0].merge(parts[1]).moments(), moments_of(rows)
    torch.testing.assert_close(both.mean, whole.mean, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(both.covariance, whole.covariance, rtol=1e-10, atol=1e-12)
    assert (both.images, parts[0].images, parts[1].images) == (300, cut, 300 - cut)
    assert frechet_distance(both, moments_of(drawn(300, 24, 2))) == pytest.approx(
        frechet_distance(whole, moments_of(drawn(300, 24, 2))), rel=1e-10
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(2, 40), st.integers(1, 12), st.integers(0, 10**6))
def test_it_is_symmetric_and_blind_to_order(n: int, m: int, dim: int, seed: int) -> None:
    a, b = drawn(n, dim, seed), drawn(m, dim, seed + 1)
    there = frechet_distance(moments_of(a), moments_of(b))
    back = frechet_distance(moments_of(b), moments_of(a))
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    shuffled = frechet_distance(moments_of(a[order]), moments_of(b))
    size = float(a.square().sum(1).mean() + b.square().sum(1).mean())
    assert there >= 0
    assert back == pytest.approx(there, rel=1e-9, abs=1e-12 * size)
    assert shuffled == pytest.approx(there, rel=1e-9, abs=1e-12 * size)


@pytest.mark.parametrize("dim", [64, 500])
def test_fewer_images_than_features_cost_no_digits(dim: int) -> None:
    """Against the same trace from products of images with images, which are few."""
    a, b = drawn(12, dim, 1), drawn(9, dim, 2)
    apart = (a.mean(0) - b.mean(0)).square().sum()
    one, two = ((rows - rows.mean(0)) / (len(rows) - 1) ** 0.5 for rows in (a, b))
    overlap = torch.linalg.svdvals(one @ two.T).sum()
    wanted = float(apart + one.square().sum() + two.square().sum() - 2 * overlap)
    assert frechet_distance(moments_of(a), moments_of(b)) == pytest.approx(wanted, rel=1e-11)


def test_constant_features_are_apart_by_their_means() -> None:
    a, b = torch.full((5, 3), 2.0), torch.full((9, 3), -1.0)
    assert frechet_distance(moments_of(a), moments_of(b)) == 27.0
    assert frechet_distance(moments_of(a), moments_of(a, 2)) == 0.0


def test_few_images_are_said_to_be_too_few() -> None:
    few, many = moments_of(drawn(20, 64)), moments_of(drawn(65, 64))
    assert bias_note(many, many) == ""
    assert bias_note(few, many) == bias_note(many, few)
    assert "20 images are too few for 64 features" in bias_note(few, many)
    assert "rank 19 at most" in bias_note(few, many)
    assert measure_fid(few, many).note == bias_note(few, many)


def test_the_bias_is_what_the_note_says() -> None:
    """Images of one distribution: the distance falls with their number."""
    pool = drawn(4000, 64)
    found = [
        frechet_distance(moments_of(pool[:n]), moments_of(pool[2000:])) for n in (20, 200, 2000)
    ]
    assert found[0] > 2 * found[1] > 4 * found[2]


def test_the_measure_and_its_interval() -> None:
    rows, real = drawn(300, 16, 1), moments_of(drawn(500, 16, 2))
    bare = measure_fid(moments_of(rows), real, seed=3)
    assert (bare.name, bare.n, bare.unit, bare.seed) == ("fid[stand-in]", 300, "images", 3)
    assert (bare.low, bare.high, bare.weights) == (None, None, NETWORK.fingerprint)
    found = measure_fid(moments_of(rows), real, groups=grouped(rows), seed=3)
    assert found.value == bare.value and found.low is not None and found.high is not None
    assert found.low < found.value < found.high


def test_moments_on_disk(tmp_path: Path) -> None:
    moments, path = moments_of(drawn(9, 4)), tmp_path / "real.safetensors"
    moments.write(path)
    found = read_moments(path, NETWORK)
    assert (found.images, found.network) == (9, NETWORK.name)
    assert found.fingerprint == NETWORK.fingerprint
    assert torch.equal(found.mean, moments.mean)
    assert torch.equal(found.covariance, moments.covariance)
    first = path.read_bytes()
    found.write(path)
    assert path.read_bytes() == first


def test_moments_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "real.safetensors"
    with pytest.raises(RunError, match="cannot read .*no such file"):
        read_moments(path, NETWORK)
    moments_of(drawn(9, 4)).write(path)
    other = StandIn("other", "f" * 16)
    with pytest.raises(
        RunError, match=r"features of stand-in \(fingerprint 0123.*and this is other"
    ):
        read_moments(path, other)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(RunError, match="truncated or damaged"):
        read_moments(path, NETWORK)
    replace(moments_of(drawn(9, 4)), covariance=torch.ones(4, 3, dtype=torch.float64)).write(path)
    with pytest.raises(RunError, match=r"expected covariance torch.float64 \[4, 4\]"):
        read_moments(path, NETWORK)


def test_one_network_alone() -> None:
    a, other = moments_of(drawn(9, 4)), RunningMoments(StandIn("other", "f" * 16))
    other.update(drawn(9, 4))
    with pytest.raises(UsageError, match="features are of stand-in .* and of other .*one network"):
        frechet_distance(a, other.moments())
    with pytest.raises(UsageError, match="one network"):
        running(drawn(9, 4)).merge(other)
    with pytest.raises(UsageError, match="features are 4 and 5 wide"):
        frechet_distance(a, moments_of(drawn(9, 5)))
    with pytest.raises(UsageError, match="features are 5 wide and those before 4"):
        running(drawn(9, 4)).update(drawn(9, 5))


def test_what_was_taken_stays_as_it_was() -> None:
    first, second = running(drawn(9, 4, 1)), running(drawn(7, 4, 2))
    before = [first.moments(), second.moments()]
    kept = [moments.mean.clone() for moments in before]
    both = RunningMoments(NETWORK).merge(first).merge(second)
    both.update(drawn(5, 4, 3))
    for running_, taken, mean in zip((first, second), before, kept, strict=True):
        assert torch.equal(running_.moments().mean, mean)
        assert torch.equal(running_.moments().covariance, taken.covariance)
    first.update(drawn(5, 4, 3))
    assert torch.equal(before[0].mean, kept[0])
    assert not torch.equal(first.moments().mean, kept[0])


def test_bad_features_get_a_sentence() -> None:
    moments = RunningMoments(NETWORK)
    with pytest.raises(UsageError, match="images so far: 0, and a covariance takes at least 2"):
        moments.moments()
    moments.update(drawn(1, 4))
    moments.update(drawn(0, 4))
    with pytest.raises(UsageError, match="images so far: 1, and"):
        moments.moments()
    with pytest.raises(UsageError, match="features hold NaN or infinity in 2 of 2 rows"):
        moments.update(drawn(2, 4) * math.nan)
    assert moments.images == 1
    with pytest.raises(UsageError, match="groups are of 8 images and the moments of 9"):
        measure_fid(moments_of(drawn(9, 4)), moments_of(drawn(9, 4)), groups=grouped(drawn(8, 4)))
