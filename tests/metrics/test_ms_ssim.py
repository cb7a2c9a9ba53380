from __future__ import annotations

import pytest
import pytorch_msssim
import torch
from torch import Tensor

from amfast.errors import UsageError
from amfast.metrics.diversity import random_pairs
from amfast.metrics.ms_ssim import pairwise_ms_ssim


def make_images(count: int, size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Images in [-1, 1] that share half of what they show."""
    random = torch.Generator().manual_seed(0)
    drawn = torch.rand(count, 3, size, size, generator=random, dtype=torch.float64)
    return (drawn + drawn[:1] - 1).to(dtype)


def test_it_is_pytorch_msssim_of_the_pairs() -> None:
    images, pairs = make_images(3, 168, torch.float64), torch.tensor([[0, 1], [2, 0], [1, 1]])
    unit = (images + 1) / 2
    wanted = pytorch_msssim.ms_ssim(
        unit[pairs[:, 0]], unit[pairs[:, 1]], data_range=1.0, size_average=False
    )
    found = pairwise_ms_ssim(images, pairs)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert found[2] == 1


@pytest.mark.parametrize("pairs_per_pass", [1, 3, 50])
def test_the_size_of_a_pass_does_not_change_it(pairs_per_pass: int) -> None:
    images, pairs = make_images(7, 24), random_pairs(7, 11, seed=3)
    found = pairwise_ms_ssim(images, pairs, pairs_per_pass=pairs_per_pass)
    whole = pairwise_ms_ssim(images, pairs, pairs_per_pass=11)
    torch.testing.assert_close(found, whole, rtol=1e-6, atol=0)
    swapped = pairwise_ms_ssim(images, pairs.flip(1), pairs_per_pass=pairs_per_pass)
    torch.testing.assert_close(found, swapped)


def test_collapsed_images_are_more_similar() -> None:
    images = make_images(8, 64)
    collapsed = images[:1] + 0.05 * (images - images[:1])
    pairs = random_pairs(8, 20, seed=0)
    assert pairwise_ms_ssim(collapsed, pairs).min() > pairwise_ms_ssim(images, pairs).max()


def test_no_pairs() -> None:
    assert pairwise_ms_ssim(make_images(2, 16), torch.empty(0, 2, dtype=torch.int64)).shape == (0,)


GOOD, PAIRS = make_images(3, 16), torch.tensor([[0, 1]])


@pytest.mark.parametrize(
    ("images", "pairs", "sentence"),
    [
        (GOOD[0], PAIRS, r"images are \[3, 16, 16\].*\[N, 3, H, W\]"),
        (GOOD[:, :1], PAIRS, r"images are \[3, 1, 16, 16\].*\[N, 3, H, W\]"),
        (GOOD.byte(), PAIRS, r"of torch.uint8.*floating"),
        (GOOD, PAIRS[0], r"pairs has shape \[2\].*\[P, 2\]"),
        (GOOD, PAIRS.float(), "pairs is float32.*int64"),
        (GOOD, PAIRS + 2, "pairs holds 3; there are 3 images"),
        (GOOD, PAIRS - 1, "pairs holds -1; there are 3 images"),
    ],
)
def test_bad_arguments_get_a_sentence(images: Tensor, pairs: Tensor, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        pairwise_ms_ssim(images, pairs)


def test_a_pass_holds_a_pair() -> None:
    with pytest.raises(UsageError, match="pairs_per_pass is 0; it must be at least 1"):
        pairwise_ms_ssim(GOOD, PAIRS, pairs_per_pass=0)
