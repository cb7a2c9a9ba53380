"""Precision, recall, density and coverage against the prdc package, and worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prdc import compute_prdc
from torch import Tensor

from amfast.errors import UsageError
from amfast.metrics import neighbours as module
from amfast.metrics.neighbours import Neighbours, measure_neighbours, neighbours
from tests.metrics.networks import NETWORK, drawn

NAMES = ("precision", "recall", "density", "coverage")


def means(found: Neighbours) -> dict[str, float]:
    return {name: float(getattr(found, name).mean()) for name in NAMES}


def theirs(images: Tensor, real: Tensor, k: int) -> dict[str, float]:
    found = compute_prdc(real.numpy(), images.numpy(), nearest_k=k)
    return {name: float(found[name]) for name in NAMES}


def sets(n: int, m: int, dim: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Images that overlap with the real ones in part."""
    pool = drawn(n + m, dim, 1)
    return (0.95 * pool[:n] + 0.02).to(dtype), pool[n:].to(dtype)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("n", "m", "dim"), [(200, 150, 3), (61, 130, 64), (150, 150, 2048)])
def test_it_is_prdcs(n: int, m: int, dim: int, dtype: torch.dtype, k: int) -> None:
    images, real = sets(n, m, dim, dtype)
    found = means(neighbours(images, real, k=k))
    assert found == pytest.approx(theirs(images, real, k), rel=1e-12)
    assert found["precision"] > 0 and found["recall"] > 0 and found["coverage"] > 0


def test_far_from_zero_it_is_the_same() -> None:
    """With coordinates that lose nothing when they are moved."""
    images, real = ((rows * 2**20).round() / 2**20 for rows in sets(120, 100, 8))
    there = neighbours(images + 2**24, real + 2**24)
    assert means(there) == means(neighbours(images, real))
    assert means(there) == pytest.approx(theirs(images, real, 5), rel=1e-12)


@pytest.mark.parametrize("at_once", [1, 150, 700])
def test_what_is_held_at_once_changes_nothing(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, real = sets(140, 90, 6)
    whole = neighbours(images, real)
    monkeypatch.setattr(module, "_DISTANCES", at_once)
    parts = neighbours(images, real)
    for name in NAMES:
        assert torch.equal(getattr(parts, name), getattr(whole, name))


def test_by_hand() -> None:
    """On a line, k = 1: real spheres (-1, 1), (0, 2), (4, 8), (7, 9) around 0, 1, 6 (to 8), 8."""
    real = torch.tensor([0.0, 1.0, 6.0, 8.0])[:, None]
    images = torch.tensor([0.5, 0.75, 5.0, 20.0])[:, None]
    found = neighbours(images, real, k=1)
    assert found.density.tolist() == [2, 2, 1, 0]
    assert found.precision.tolist() == [1, 1, 1, 0]
    assert found.coverage.tolist() == [1, 1, 1, 0]
    # Their spheres reach 0.25, 0.25, 4.25 and 15: 1 lies on that of 0.75, and within that of 5.
    assert found.recall.tolist() == [0, 1, 1, 1]
    assert found.empty == 0


def test_a_sphere_is_open_and_rounding_does_not_matter() -> None:
    """An image as far as the k-th neighbour lies on the sphere, so equal sets have density 1."""
    rows = drawn(80, 40, 2)
    found = neighbours(rows.flip(0), rows, k=4)
    assert means(found) == {"precision": 1, "recall": 1, "density": 1, "coverage": 1}
    # A grid has nothing but ties; in tenths, which are no binary numbers, as in whole numbers.
    grid = torch.cartesian_prod(*[torch.arange(7.0, dtype=torch.float64)] * 2)
    whole, tenths = (neighbours(step * grid, step * grid) for step in (1, 0.1))
    for name in NAMES:
        assert torch.equal(getattr(whole, name), getattr(tenths, name))
    assert found.density.unique().numel() > 1


def test_images_apart_from_the_real_ones() -> None:
    images, real = drawn(30, 4) + 1e3, drawn(40, 4)
    assert means(neighbours(images, real)) == dict.fromkeys(NAMES, 0.0)


def test_collapsed_images_are_precise_and_recall_little() -> None:
    real = drawn(200, 4)
    images = real[:1] + 1e-3 * drawn(100, 4, 1)
    found = means(neighbours(images, real))
    assert found["precision"] > 0.9 and found["recall"] < 0.1 and found["coverage"] < 0.2


@settings(max_examples=30, deadline=None)
@given(st.integers(6, 40), st.integers(6, 40), st.integers(1, 8), st.integers(0, 10**6))
def test_order_does_not_matter_and_sides_change_places(n: int, m: int, dim: int, seed: int) -> None:
    images, real = drawn(n, dim, seed % 5), drawn(m, dim, seed % 7)
    stream = torch.Generator().manual_seed(seed)
    order, other = torch.randperm(n, generator=stream), torch.randperm(m, generator=stream)
    found, shuffled = neighbours(images, real), neighbours(images[order], real[other])
    for name, rows in zip(NAMES, (order, other, order, other), strict=True):
        assert torch.equal(getattr(found, name)[rows], getattr(shuffled, name))
    turned = neighbours(real, images)
    assert torch.equal(turned.precision, found.recall)
    assert torch.equal(turned.recall, found.precision)


def test_the_measures_and_their_intervals() -> None:
    images, real = sets(200, 150, 3)
    found = measure_neighbours(images, real, NETWORK, seed=8)
    assert [measure.name for measure in found] == [f"{name}[stand-in]" for name in NAMES]
    assert [measure.n for measure in found] == [200, 150, 200, 150]
    for measure, value in zip(found, means(neighbours(images, real)).values(), strict=True):
        assert measure.value == pytest.approx(value)
        assert measure.low is not None and measure.high is not None
        assert measure.low <= measure.value <= measure.high and measure.low < measure.high
        assert (measure.seed, measure.weights, measure.note) == (8, NETWORK.fingerprint, "")


def test_images_that_coincide_are_said_to() -> None:
    images, real = torch.full((20, 3), 0.1), drawn(30, 3).float()
    found = neighbours(images, real)
    assert found.empty == 20 and float(found.recall.max()) == 0.0
    note = measure_neighbours(images, real, NETWORK)[0].note
    assert note.startswith("20 of 50 images have the features of 5 others")
    # Products of long rows cancel to rounding, which is no distance.
    sixfold = drawn(10, 300).repeat(6, 1)
    assert neighbours(sixfold, drawn(30, 300, 1)).empty == 60


@pytest.mark.parametrize(
    ("images", "real", "k", "sentence"),
    [
        (drawn(9, 4), drawn(9, 4)[0], 5, r"the real features are \[4\]"),
        (drawn(9, 4) * math.nan, drawn(9, 4), 5, "features hold NaN or infinity in 9 of 9"),
        (drawn(9, 4), drawn(9, 4) * math.inf, 5, "the real features hold NaN"),
        (drawn(9, 4), drawn(9, 5), 5, "features are 4 wide and the real ones 5"),
        (drawn(5, 4), drawn(9, 4), 5, "k is 5 and the smaller set holds 5"),
        (drawn(9, 4), drawn(1, 4), 1, "k is 1 and the smaller set holds 1"),
        (drawn(9, 4), drawn(9, 4), 0, "k must be at least 1"),
    ],
)
def test_bad_arguments_get_a_sentence(images: Tensor, real: Tensor, k: int, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        neighbours(images, real, k=k)
