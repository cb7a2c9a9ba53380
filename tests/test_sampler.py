"""A mixture's images: shares, seeds, and the same ones however they are drawn."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import amfast
from amfast import sampler as module
from amfast.errors import UsageError
from amfast.generators.architectures import random_biggan
from tests.generators.conftest import CONFIGS

GENERATOR = amfast.generators.BigGANGenerator(
    random_biggan(CONFIGS["one-block"]),
    name="tiny",
    labels=["a", "b"],
    device=torch.device("cpu"),
    dtype=torch.float32,
)
TABLE = GENERATOR.class_embeddings  # [2, 7]
NEAR = {"rtol": 0, "atol": 1e-5}


def places(images: torch.Tensor, among: torch.Tensor) -> list[int]:
    """Which of ``among`` each image is, to rounding; each of them is one."""
    apart = torch.cdist(images.flatten(1), among.flatten(1))
    nearest, found = apart.min(dim=1)
    assert nearest.max() < 1e-3
    return found.tolist()


def test_half_and_half_as_in_the_paper():
    images, which = amfast.Sampler(GENERATOR, TABLE).sample(1000)
    assert images.shape == (1000, 3, 8, 8) and images.dtype == torch.float32
    assert images.abs().max() <= 1
    assert which.bincount().tolist() == [500, 500]


def test_an_image_shows_the_embedding_that_it_names():
    sampler = amfast.Sampler(GENERATOR, TABLE, [1, 3], seed=3)
    images, which = sampler.sample(8)
    assert which.bincount().tolist() == [2, 6]
    alone = [amfast.Sampler(GENERATOR, row[None], seed=3).sample(8)[0] for row in TABLE]
    for i, k in enumerate(which.tolist()):  # image i has the same latent in all three
        torch.testing.assert_close(images[i], alone[k][i], **NEAR)
        assert not torch.allclose(images[i], alone[1 - k][i], atol=1e-2)
    assert places(images, images) == list(range(8))  # no latent twice


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6).filter(any), st.integers(1, 200))
def test_shares_are_kept_within_one_image_all_along(weights, count):
    width = len(weights)
    sampler = amfast.Sampler(GENERATOR, TABLE[:1].expand(width, -1), weights)
    taken = Counter()
    for n, row in enumerate(itertools.islice(sampler._choices(), count), start=1):
        taken[row] += 1
        for k, weight in enumerate(weights):
            assert abs(taken[k] - Fraction(weight * n, sum(weights))) < 1


@pytest.mark.parametrize("size", [1, 5, 64])
def test_the_size_of_a_pass_changes_nothing(size):
    expected = amfast.Sampler(GENERATOR, TABLE).sample(20)
    found = amfast.Sampler(GENERATOR, TABLE, images_per_pass=size).sample(20)
    torch.testing.assert_close(found[0], expected[0], **NEAR)
    assert torch.equal(found[1], expected[1])
    shorter = amfast.Sampler(GENERATOR, TABLE, count=7, images_per_pass=size).sample(7)
    torch.testing.assert_close(shorter[0], expected[0][:7], **NEAR)


def test_seeds():
    first, again, other = (
        amfast.Sampler(GENERATOR, TABLE, seed=seed).sample(4)[0] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-2)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    amfast.Sampler(GENERATOR, TABLE).sample(1)
    assert torch.equal(torch.get_rng_state(), state)  # it draws from no one else's stream


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_workers_share_the_images_among_them(workers):
    sampler = amfast.Sampler(GENERATOR, TABLE, [1, 2], count=25, images_per_pass=4)
    expected = sampler.sample(25)
    batches = list(DataLoader(sampler, batch_size=3, num_workers=workers))
    images, which = (torch.cat(parts) for parts in zip(*batches, strict=True))
    order = places(images, expected[0])
    assert sorted(order) == list(range(25))
    assert torch.equal(which, expected[1][order])
    if workers < 2:
        assert order == list(range(25))


def test_a_worker_cannot_share_a_gpu(monkeypatch):
    """Said of a stand-in: what is told is the device, before anything is drawn on it."""
    sampler = amfast.Sampler(GENERATOR, TABLE)
    monkeypatch.setattr(module, "device_of", lambda generator: torch.device("cuda", 0))
    worker = SimpleNamespace(id=0, num_workers=1)
    monkeypatch.setattr(module, "get_worker_info", lambda: worker)
    with pytest.raises(UsageError, match="is on cuda:0, which DataLoader's workers cannot share"):
        next(iter(sampler))


@pytest.mark.gpu
def test_on_cuda_images_stay_on_the_device():
    generator = amfast.load_generator("embedded", device="cuda")
    sampler = amfast.Sampler(generator, generator.class_embeddings, count=9)
    (images, which), *_ = DataLoader(sampler, batch_size=9)
    assert images.is_cuda and sorted(set(which.tolist())) == list(range(9))
    with pytest.raises(UsageError, match="DataLoader's workers cannot share"):
        next(iter(DataLoader(sampler, batch_size=9, num_workers=1)))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((TABLE[0],), "the embeddings are [7]; generator tiny takes [K, 7], one or more"),
        ((TABLE[:0],), "the embeddings are [0, 7]"),
        ((TABLE[:, :6],), "the embeddings are [2, 6]"),
        ((TABLE * torch.nan,), "not finite"),
        ((TABLE, [1]), "2 embeddings need as many weights, given [1]"),
        ((TABLE, [1, -1]), "weights should be 0 or more, and one above, given [1, -1]"),
        ((TABLE, [0, 0]), "weights should be 0 or more"),
        ((TABLE, [1, float("inf")]), "weights should be 0 or more"),
    ],
)
def test_what_is_out_of_bounds(arguments, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        amfast.Sampler(GENERATOR, *arguments)


@pytest.mark.parametrize("name", ["count", "seed", "images_per_pass"])
def test_numbers_out_of_bounds(name):
    with pytest.raises(UsageError, match=f"{name} should be [01] or more, given -1"):
        amfast.Sampler(GENERATOR, TABLE, **{name: -1})
    for count in (0, 6):
        with pytest.raises(UsageError, match="count should lie in 1 to 5, given"):
            amfast.Sampler(GENERATOR, TABLE, count=5).sample(count)


def test_the_example_of_the_docs(monkeypatch):
    page = Path(__file__).parents[1] / "docs" / "exchange.md"
    example = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)[-1]
    few = {"steps": 2, "trials": 1, "latents": 2}
    optimize = amfast.optimize
    monkeypatch.setattr(
        amfast, "optimize", lambda *given, **named: optimize(*given, **named, **few)
    )
    short = example.replace("count=1000", "count=6").replace("batch_size=100", "batch_size=6")
    assert short.count("=6") == 2
    found: dict[str, torch.Tensor] = {}
    exec(compile(short, str(page), "exec"), found)
    assert found["images"].shape == (6, 3, 64, 64)
    assert found["which"].bincount().tolist() == [3, 3]
