"""The Inception Score against torch-fidelity on the same logits, and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_fidelity.metric_isc import (
    KEY_METRIC_ISC_MEAN,
    KEY_METRIC_ISC_STD,
    isc_features_to_metric,
)

from amfast.errors import UsageError
from amfast.metrics.inception_score import inception_score, measure_inception_score
from tests.metrics.networks import NETWORK


def logits(
    count: int, classes: int = 20, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Class by class, each image surer of its own."""
    stream = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, classes, generator=stream, dtype=torch.float64)
    own = torch.arange(count) * classes // max(count, 1)
    return (rows + 6 * torch.nn.functional.one_hot(own, classes)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize(("count", "splits"), [(500, 10), (73, 10), (11, 11), (50, 1)])
def test_it_is_torch_fidelitys(count: int, splits: int, dtype: torch.dtype) -> None:
    rows = logits(count, dtype=dtype)
    for seed in (2020, 7, None):
        options = {"shuffle": seed is not None, "rng_seed": seed}
        wanted = isc_features_to_metric(rows, splits, **options)
        found = inception_score(rows, splits=splits, shuffle_seed=seed)
        assert found.mean == pytest.approx(wanted[KEY_METRIC_ISC_MEAN], rel=1e-6)
        assert found.std == pytest.approx(wanted[KEY_METRIC_ISC_STD], rel=1e-6, abs=1e-12)


def test_the_shuffle_is_torch_fidelitys_unless_asked_otherwise() -> None:
    rows = logits(300)
    assert inception_score(rows) == inception_score(rows, shuffle_seed=2020)
    # In order, a split holds two of the twenty classes.
    assert inception_score(rows, shuffle_seed=None).mean < 0.5 * inception_score(rows).mean


def test_certain_images_of_all_classes_score_their_number() -> None:
    """With logits so far apart that the other classes' probability is 0 in float64."""
    for classes in (2, 10):
        rows = 2000 * torch.eye(classes).repeat(30, 1)
        found = inception_score(rows, splits=3, shuffle_seed=None)
        assert found.mean == pytest.approx(classes, rel=1e-6) and found.std < 1e-9


def test_a_class_that_nobody_sees_is_no_nan() -> None:
    rows = torch.tensor([[2000.0, 0.0, -2000.0], [0.0, 2000.0, -2000.0]]).repeat(5, 1)
    assert inception_score(rows, splits=1).mean == pytest.approx(2.0, rel=1e-6)


def test_alike_images_score_one() -> None:
    rows = logits(1).expand(40, -1)
    assert inception_score(rows).mean == pytest.approx(1.0, abs=1e-12)
    found = measure_inception_score(rows, NETWORK)
    assert (found.low, found.high) == (pytest.approx(1.0), pytest.approx(1.0))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(2, 12), st.integers(0, 10**6))
def test_the_order_of_images_and_classes_is_irrelevant(n: int, classes: int, seed: int) -> None:
    rows = logits(n, classes, seed, torch.float64)
    stream = torch.Generator().manual_seed(seed)
    turned = rows[torch.randperm(n, generator=stream)][:, torch.randperm(classes, generator=stream)]
    found, again = (inception_score(r, splits=1).mean for r in (rows, turned))
    assert again == pytest.approx(found, rel=1e-10)
    assert 1 - 1e-12 <= found <= min(n, classes) * (1 + 1e-12)


def test_the_measure_and_its_interval() -> None:
    rows = logits(600)
    found, score = measure_inception_score(rows, NETWORK, seed=5), inception_score(rows)
    assert (found.name, found.n, found.unit) == ("inception_score[stand-in]", 600, "images")
    assert (found.value, found.std, found.seed) == (*score, 5)
    assert found.weights == NETWORK.fingerprint and found.note == ""
    assert found.low is not None and found.high is not None and found.low < found.high
    assert found == measure_inception_score(rows, NETWORK, seed=5)
    assert found.low != measure_inception_score(rows, NETWORK, seed=6).low


def test_replicates_are_scores_of_images_drawn_anew() -> None:
    """With one split, against the score of each draw."""
    rows = logits(90, 6, dtype=torch.float64)
    found = measure_inception_score(rows, NETWORK, splits=1, shuffle_seed=None, resamples=400)
    stream = torch.Generator().manual_seed(0)
    scores = [
        inception_score(rows[torch.randint(90, (90,), generator=stream)], splits=1).mean
        for _ in range(400)
    ]
    edges = torch.tensor([0.025, 0.975], dtype=torch.float64)
    around = torch.tensor(scores, dtype=torch.float64)
    wanted = torch.quantile(around - around.mean() + found.value, edges).tolist()
    assert [found.low, found.high] == pytest.approx(wanted, rel=1e-9)


def test_the_interval_holds_the_value() -> None:
    """Scores of images drawn anew are smaller, by more than the interval is wide."""
    found = measure_inception_score(logits(200), NETWORK)
    assert found.low is not None and found.high is not None
    assert found.low < found.value < found.high
    certain = torch.eye(20).repeat(5, 1) * 30  # 1 is the least, and 20 the most there is
    for rows in (certain, certain[:1].expand(40, -1)):
        assert (measure_inception_score(rows, NETWORK).low or 0.0) >= 1.0


def test_small_sets_get_a_sentence() -> None:
    note = measure_inception_score(logits(100), NETWORK).note
    assert "a split of 10 images cannot show 20 classes: no score above 10 is possible" in note
    assert measure_inception_score(logits(10), NETWORK).value == 1.0
    with pytest.raises(UsageError, match="9 images cannot be cut into 10 splits"):
        inception_score(logits(9))
    with pytest.raises(UsageError, match="0 images cannot be cut"):
        inception_score(logits(0))
    with pytest.raises(UsageError, match="cut into 0 splits"):
        inception_score(logits(9), splits=0)
    for seed in (-1, 2**32):
        with pytest.raises(UsageError, match=f"shuffle_seed is {seed}; it must be from 0"):
            inception_score(logits(10), shuffle_seed=seed)


def test_bad_logits_get_a_sentence() -> None:
    with pytest.raises(UsageError, match="logits hold NaN or infinity in 20 of 20 rows"):
        inception_score(logits(20) * math.nan)
    with pytest.raises(UsageError, match=r"logits are \[20\].*\[N, D\]"):
        inception_score(logits(20)[:, 0])
