"""FID's interval against leaving images out by hand, and against many sets of images."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from amfast.errors import UsageError
from amfast.metrics import jackknife
from amfast.metrics.frechet import Moments, RunningMoments, frechet_distance
from amfast.metrics.jackknife import GROUPS, GroupedSums
from tests.metrics.networks import NETWORK, drawn

Interval = tuple[float, float]


def moments_of(features: Tensor) -> Moments:
    moments = RunningMoments(NETWORK)
    moments.update(features)
    return moments.moments()


def interval(features: Tensor, real: Moments, batch: int | None = None) -> Interval | None:
    groups = GroupedSums()
    for part in features.split(batch or len(features)):
        groups.update(part)
    return groups.interval(frechet_distance(moments_of(features), real), real.mean, real.root)


def by_hand(features: Tensor, real: Moments) -> Interval:
    """The formula, with the features at hand and FID as it is measured."""
    left = [features[torch.arange(len(features)) % GROUPS != group] for group in range(GROUPS)]
    found = torch.tensor([frechet_distance(moments_of(rows), real) for rows in left])
    error = math.sqrt((GROUPS - 1) / GROUPS * float((found - found.mean()).square().sum()))
    value = frechet_distance(moments_of(features), real)
    return max(0.0, value - 2.262157 * error), value + 2.262157 * error


@pytest.mark.parametrize(("count", "dim"), [(20, 5), (203, 16), (47, 64)])
def test_it_is_the_jackknife_by_hand(count: int, dim: int) -> None:
    rows, real = drawn(count, dim, 1), moments_of(drawn(300, dim, 2))
    assert interval(rows, real) == pytest.approx(by_hand(rows, real), rel=1e-6)


def test_real_images_fewer_than_features() -> None:
    rows, real = drawn(90, 32, 1), moments_of(drawn(20, 32, 2))
    assert interval(rows, real) == pytest.approx(by_hand(rows, real), rel=1e-6)


@pytest.mark.parametrize("batch", [1, 7, 50])
def test_the_size_of_a_batch_does_not_matter(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, real = drawn(123, 8, 1) + 1e4, moments_of(drawn(300, 8, 2) + 1e4)
    whole = interval(rows, real)
    monkeypatch.setattr(jackknife, "_AT_ONCE", 16)
    assert interval(rows, real, batch) == pytest.approx(whole, rel=1e-5)


def test_images_may_come_after_an_interval() -> None:
    rows, real = drawn(75, 8, 1), moments_of(drawn(300, 8, 2))
    groups = GroupedSums()
    for part in rows.split([33, 42]):
        groups.update(part)
        found = groups.interval(1.0, real.mean, real.root)
    whole = GroupedSums()
    whole.update(rows)
    assert found == pytest.approx(whole.interval(1.0, real.mean, real.root))


def test_too_few_images_have_none() -> None:
    real = moments_of(drawn(300, 4, 2))
    assert interval(drawn(19, 4, 1), real) is None
    assert interval(drawn(20, 4, 1), real) is not None


@pytest.mark.parametrize(("count", "shift"), [(20, 0.5), (60, 0.5), (400, 0.5), (60, 0.0)])
def test_it_holds_the_mean_distance_of_many_sets(count: int, shift: float) -> None:
    """Fewer images than features, and more; of another distribution than the real ones or not."""
    dim = 24
    pool = drawn(40_000, dim, 1)
    real = moments_of(drawn(40_000, dim, 1) + shift * pool.std(dim=0))
    sets = pool.split(count)[:100]
    distances = [frechet_distance(moments_of(rows), real) for rows in sets]
    mean, spread = torch.tensor(distances).mean(), torch.tensor(distances).std()
    found = [interval(rows, real) for rows in sets]
    held = [low <= mean <= high for low, high in filter(None, found)]
    assert len(held) == 100 and sum(held) >= 88
    wide = sum(high - low for low, high in filter(None, found)) / 100
    assert wide < 1.9 * 3.92 * float(spread)


def test_the_shares_of_classes_are_no_chance() -> None:
    """Sets of ten classes in equal parts scatter little, and the interval is no wider."""
    means = 5 * drawn(10, 12, 3)
    pool = drawn(20_000, 12, 1) + means.repeat_interleave(20, dim=0).repeat(100, 1)
    real = moments_of(drawn(5_000, 12, 2))
    sets = pool.split(200)[:40]
    spread = torch.tensor([frechet_distance(moments_of(rows), real) for rows in sets]).std()
    found = [interval(rows, real) for rows in sets]
    wide = sum(high - low for low, high in filter(None, found)) / 40
    assert 0.8 * 3.92 * float(spread) < wide < 1.5 * 3.92 * float(spread)


def test_bad_features_get_a_sentence() -> None:
    groups = GroupedSums()
    with pytest.raises(UsageError, match="features hold NaN or infinity in 2 of 2 rows"):
        groups.update(drawn(2, 4) * math.nan)
    assert groups.images == 0
