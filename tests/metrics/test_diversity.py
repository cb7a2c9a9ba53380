from __future__ import annotations

import pytest
import torch

from amfast.errors import UsageError
from amfast.metrics import diversity
from amfast.metrics.diversity import (
    all_feature_distances,
    feature_distance,
    pool,
    pooled_distance,
    pooled_spread,
    random_pairs,
)


def test_pairs_are_seeded_and_of_different_images() -> None:
    pairs = random_pairs(7, 2000, seed=1)
    assert pairs.shape == (2000, 2)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert pairs.min() == 0
    assert pairs.max() == 6
    assert torch.equal(pairs, random_pairs(7, 2000, seed=1))
    assert not torch.equal(pairs, random_pairs(7, 2000, seed=2))


def test_the_spread_is_the_distance_of_all_pairs() -> None:
    images = torch.randn(2, 7, 3, 9, 9)
    pairs = torch.combinations(torch.arange(7))
    for of_one, spread in zip(
        images, pooled_spread(pool(images.flatten(0, 1)).view(2, 7, -1)), strict=True
    ):
        torch.testing.assert_close(
            spread, pooled_distance(of_one, pairs).square().mean().sqrt(), rtol=1e-5, atol=0
        )
    assert pooled_spread(pool(images[0, :1])) == 0


def test_pooled_distance_by_hand() -> None:
    images = torch.stack([torch.full((3, 16, 16), v) for v in (-1.0, 1.0, 0.5)])
    pairs = torch.tensor([[0, 1], [1, 2], [2, 2]])
    torch.testing.assert_close(pooled_distance(images, pairs), torch.tensor([2.0, 0.5, 0.0]))


def test_pooling_ignores_what_is_smaller_than_a_cell() -> None:
    checks = (torch.arange(64)[:, None] + torch.arange(64)) % 2 * 2.0 - 1
    images = torch.stack([checks, -checks]).unsqueeze(1).expand(-1, 3, -1, -1)
    assert pooled_distance(images, torch.tensor([[0, 1]])).item() < 1e-6


def test_feature_distance_by_hand() -> None:
    maps = torch.zeros(3, 2, 4, 4)
    maps[0, 0] = 5.0
    maps[1, 1] = 0.1
    maps[2, 0, :2] = 3.0  # the upper half points as in image 0, the lower nowhere
    pairs = torch.tensor([[0, 1], [1, 0], [0, 0], [0, 2]])
    expected = torch.tensor([2.0, 2.0, 0.0, 0.5])
    torch.testing.assert_close(feature_distance([maps], pairs), expected)
    torch.testing.assert_close(feature_distance([maps, maps.half()], pairs), 2 * expected)
    weights = [torch.tensor([3.0, 0.5]), torch.tensor([0.0, 0.0])]
    weighted = feature_distance([maps, maps], pairs, weights)
    torch.testing.assert_close(weighted, torch.tensor([3.5, 3.5, 0.0, 1.5]))
    assert feature_distance([maps.double()], pairs).dtype == torch.float64


def test_feature_distance_refuses_bad_pairs() -> None:
    with pytest.raises(UsageError, match="pairs holds 3; there are 3 images"):
        feature_distance([torch.ones(3, 2, 4, 4)], torch.tensor([[0, 3]]))


@pytest.mark.parametrize("copied", [1, 400, 1 << 22])
def test_all_feature_distances_are_those_of_the_pairs(
    copied: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = torch.Generator().manual_seed(0)
    maps = [torch.randn(5, c, 7, 4, generator=random) for c in (6, 17)]
    weights = [torch.rand(c, generator=random) for c in (6, 17)]
    wanted = feature_distance(maps, torch.cartesian_prod(*[torch.arange(5)] * 2), weights)
    monkeypatch.setattr(diversity, "_COPIED", copied)
    found = all_feature_distances(maps, weights)
    torch.testing.assert_close(found, wanted.reshape(5, 5), rtol=0, atol=5e-6)
    assert torch.equal(found, found.T) and (found.diagonal() == 0).all()


def test_feature_distance_does_not_depend_on_how_many_pairs_are_copied_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = torch.Generator().manual_seed(0)
    maps = [torch.randn(5, c, 3, 4, generator=random) for c in (6, 17)]
    pairs = random_pairs(5, 12, seed=0)
    together = feature_distance(maps, pairs)
    monkeypatch.setattr(diversity, "_COPIED", 1)
    assert torch.equal(feature_distance(maps, pairs), together)
    assert feature_distance(maps, pairs[:0]).shape == (0,)
