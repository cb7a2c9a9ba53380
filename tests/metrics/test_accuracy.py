"""Top-k against torch's own, ties and degenerate logits included."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from amfast.errors import UsageError
from amfast.metrics.accuracy import in_top, measure_accuracy
from tests.metrics.networks import NETWORK


def logits(count: int = 40, classes: int = 9) -> Tensor:
    return torch.randn(count, classes, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("k", [1, 5, 9])
def test_it_is_torchs_topk(k: int) -> None:
    targets = torch.arange(40) % 9
    wanted = (logits().topk(k).indices == targets[:, None]).any(dim=1)
    assert torch.equal(in_top(logits(), targets, k), wanted)
    for target in range(9):
        one = (logits().topk(k).indices == target).any(dim=1)
        assert torch.equal(in_top(logits(), target, k), one)


def test_of_equal_logits_the_first_is_the_greater() -> None:
    rows = torch.tensor([[1.0, 1.0, 1.0], [0.0, 2.0, 2.0]])
    for target, wanted in enumerate([[True, False], [False, True], [False, False]]):
        assert in_top(rows, target, 1).tolist() == wanted
        assert (rows.argmax(dim=1) == target).tolist() == wanted
    assert in_top(rows, 2, 2).tolist() == [False, True]


def test_the_measure_is_the_share_of_hits() -> None:
    found = measure_accuracy(logits(), 4, NETWORK, k=5, seed=7)
    share = float((logits().topk(5).indices == 4).any(dim=1).double().mean())
    assert (found.name, found.n, found.unit) == ("top5[stand-in]", 40, "images")
    assert (found.value, found.seed, found.weights) == (share, 7, NETWORK.fingerprint)
    assert found.low is not None and found.high is not None
    assert 0 <= found.low < share < found.high <= 1
    assert in_top(logits(0), 0, 1).shape == (0,)


@pytest.mark.parametrize(
    ("rows", "target", "k", "sentence"),
    [
        (logits()[0], 0, 1, r"logits are \[9\].*\[N, D\]"),
        (logits().long(), 0, 1, "of torch.int64.*floating"),
        (logits() * math.nan, 0, 1, "logits hold NaN or infinity in 40 of 40 rows"),
        (logits(), 0, 10, "k is 10; among 9 classes it must be from 1 to 9"),
        (logits(), 0, 0, "k is 0"),
        (logits(), 9, 1, "target holds 9 to 9; the logits are of 9 classes"),
        (logits(), -1, 1, "target holds -1"),
        (logits(), torch.zeros(3, dtype=torch.int64), 1, r"target is \[3\].*int64 of \[40\]"),
        (logits(), torch.zeros(40), 1, r"of torch.float32.*int64 of \[40\]"),
    ],
)
def test_bad_arguments_get_a_sentence(
    rows: Tensor, target: int | Tensor, k: int, sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        in_top(rows, target, k)
