"""Intervals against their definition, and what a measure says of itself."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from amfast.errors import UsageError
from amfast.metrics import measure
from amfast.metrics.measure import (
    Measure,
    bootstrap_means,
    bootstrap_statistic,
    measure_mean,
    percentile_interval,
)


def values(count: int, seed: int = 0) -> Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.rand(count, generator=stream, dtype=torch.float64).square()


def test_the_interval_of_a_mean_is_scipys() -> None:
    found = measure_mean("lpips", values(200), unit="pairs", seed=3, resamples=20_000)
    theirs = scipy.stats.bootstrap(
        (values(200).numpy(),),
        np.mean,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert (found.value, found.n) == (pytest.approx(float(values(200).mean()), rel=1e-12), 200)
    width = theirs.high - theirs.low
    assert found.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert found.high == pytest.approx(theirs.high, abs=0.03 * width)


def test_the_interval_holds_the_true_mean_as_often_as_it_says() -> None:
    held = 0
    for seed in range(200):
        found = measure_mean("m", values(100, seed), unit="images", seed=seed, resamples=300)
        assert found.low is not None and found.high is not None
        held += found.low <= 1 / 3 <= found.high
    assert 180 <= held <= 199  # 190 expected, 3 standard deviations either way


def test_draws_are_seeded_and_whole_whatever_is_held_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = torch.stack([values(50), torch.ones(50, dtype=torch.float64)], dim=1)
    together = bootstrap_means(rows, seed=1, resamples=40)
    assert together.shape == (40, 2)
    torch.testing.assert_close(together[:, 1], torch.ones(40, dtype=torch.float64))
    assert len(together[:, 0].unique()) == 40
    torch.testing.assert_close(bootstrap_means(rows[:, 0], seed=1, resamples=40), together[:, 0])
    assert not torch.equal(bootstrap_means(rows, seed=2, resamples=40), together)
    monkeypatch.setattr(measure, "_COUNTS", 150)
    torch.testing.assert_close(bootstrap_means(rows, seed=1, resamples=40), together)


def test_a_statistic_of_means() -> None:
    rows = torch.stack([values(300), values(300).square()], dim=1)
    low, high = bootstrap_statistic(rows, lambda m: m[:, 1] - m[:, 0].square(), seed=0)
    variance = float(values(300).var(correction=0))
    assert low < variance < high
    direct = []
    stream = torch.Generator().manual_seed(0)
    for _ in range(1000):
        again = values(300)[torch.randint(300, (300,), generator=stream)]
        direct.append(float(again.var(correction=0)))
    wanted = percentile_interval(torch.tensor(direct, dtype=torch.float64))
    assert (low, high) == pytest.approx(wanted, rel=1e-9)


def test_percentiles_by_hand() -> None:
    assert percentile_interval(torch.arange(41.0)) == pytest.approx((1.0, 39.0))


def test_one_value_has_no_interval() -> None:
    found = measure_mean("m", torch.tensor([0.5]), unit="pairs", seed=0)
    assert (found.value, found.n, found.low, found.high) == (0.5, 1, None, None)


def test_what_goes_into_json() -> None:
    found = measure_mean("fid", values(9), unit="images", seed=4, weights="abc", note="Few.")
    shown = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert shown == {
        "name": "fid",
        "value": found.value,
        "n": 9,
        "unit": "images",
        "seed": 4,
        "weights": "abc",
        "low": found.low,
        "high": found.high,
        "std": None,
        "note": "Few.",
    }


@pytest.mark.parametrize("number", ["value", "low", "high", "std"])
def test_a_measure_is_finite(number: str) -> None:
    with pytest.raises(UsageError, match=r"m came to .*; a measure is finite: look for NaN"):
        Measure("m", **{"value": 1.0, "n": 3, "unit": "images", "seed": 0, number: math.nan})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (torch.empty(0), r"values are \[0\]; they must be \[N\] or \[N, S\], N at least 1"),
        (torch.ones(2, 2, 2), r"values are \[2, 2, 2\]; they must be \[N\] or \[N, S\]"),
        (torch.tensor([1.0, math.nan]), "1 of 2 values are NaN or infinite"),
        (torch.tensor([[1.0, math.inf], [1.0, 1.0]]), "1 of 2 values are NaN or infinite"),
    ],
)
def test_values_are_finite_rows(rows: Tensor, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        bootstrap_means(rows, seed=0)


def test_there_is_a_resample() -> None:
    with pytest.raises(UsageError, match="resamples is 0; it must be at least 1"):
        bootstrap_means(values(3), seed=0, resamples=0)
