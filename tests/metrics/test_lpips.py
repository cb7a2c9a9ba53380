"""LPIPS against the lpips package on the same weights, and what it promises besides."""

from __future__ import annotations

import socket
from pathlib import Path

import lpips as package
import pytest
import torch
import torchvision.models
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

import amfast
from amfast.classifiers import to_classifier_input, wrap_module
from amfast.errors import UsageError, WeightsError
from amfast.metrics import lpips
from amfast.metrics.diversity import random_pairs
from amfast.metrics.lpips import VARIANTS, Lpips, classifier_lpips, load_lpips
from amfast.weights import store

CPU = torch.device("cpu")


def make_images(count: int, size: int) -> Tensor:
    """Images in [-1, 1] of coarse blobs under fine noise, each of its own colours."""
    random = torch.Generator().manual_seed(size)
    coarse = torch.rand(count, 3, 5, 5, generator=random)
    blobs = F.interpolate(coarse, size=size, mode="bilinear")
    return 1.6 * blobs - 1 + 0.4 * torch.rand(count, 3, size, size, generator=random)


def load(net: str, **options: object) -> Lpips:
    return load_lpips(net, weights="random", device="cpu", **options)  # type: ignore[arg-type]


def by_package(ours: Lpips, net: str) -> package.LPIPS:
    """The package's model with our backbone and its own linear weights."""
    theirs = package.LPIPS(net=net, pnet_rand=True, verbose=False)
    own = ours._network._plain.state_dict()
    theirs.net.load_state_dict(
        {key: own[f"features.{key.split('.', 1)[1]}"] for key in theirs.net.state_dict()}
    )
    return theirs


@pytest.fixture(scope="module", params=VARIANTS)
def both(request: pytest.FixtureRequest) -> tuple[Lpips, package.LPIPS]:
    ours = load(request.param)
    return ours, by_package(ours, request.param)


@pytest.fixture(scope="module")
def squeeze() -> Lpips:
    return load("squeeze")


@pytest.mark.parametrize("size", [64, 128, 256])
def test_it_is_the_package(both: tuple[Lpips, package.LPIPS], size: int) -> None:
    ours, theirs = both
    images, pairs = make_images(3, size), torch.tensor([[0, 1], [2, 0]])
    with torch.no_grad():
        wanted = theirs(images[pairs[:, 0]], images[pairs[:, 1]]).flatten()
    assert wanted.min() > 0.01
    features = ours.features(images)
    torch.testing.assert_close(ours.distances(features, pairs), wanted, rtol=0, atol=1e-5)
    every = ours.all_pairs(features)
    torch.testing.assert_close(every[pairs[:, 0], pairs[:, 1]], wanted, rtol=0, atol=1e-5)
    assert torch.equal(every, every.T) and (every.diagonal() == 0).all()


@pytest.mark.parametrize("net", VARIANTS)
def test_the_smallest_image(net: str) -> None:
    metric, least = load(net), VARIANTS[net].smallest
    images = make_images(2, 40)[..., :least]
    maps = metric.features(images)
    assert metric.distances(maps, torch.tensor([[0, 1]])).isfinite().all()
    assert tuple(m.shape[1] for m in maps) == VARIANTS[net].channels
    with pytest.raises(
        UsageError, match=rf"\[2, 3, 40, {least - 1}\]; lpips-{net}-random takes sides of {least}"
    ):
        metric.features(images[..., 1:])
    with pytest.raises(RuntimeError):  # it is no more than what the network needs
        metric._network.features(images[..., 1:])


def test_equal_images_are_at_0_and_order_does_not_matter(squeeze: Lpips) -> None:
    shown = [0, 1, 2, 0, 3, 1, 0]
    images, pairs = make_images(4, 64)[shown], random_pairs(7, 60, seed=1)
    maps = squeeze.features(images, images_per_pass=3)
    found = squeeze.distances(maps, pairs)
    equal = torch.tensor([shown[i] == shown[j] for i, j in pairs.tolist()])
    assert equal.any() and (found[equal] == 0).all() and (found[~equal] > 0).all()
    assert torch.equal(found, squeeze.distances(maps, pairs.flip(1)))
    assert squeeze.distances(maps, pairs[:0]).shape == (0,)


@pytest.mark.parametrize("images_per_pass", [1, 3, 50])
def test_the_size_of_a_pass_does_not_change_it(squeeze: Lpips, images_per_pass: int) -> None:
    images, pairs = make_images(7, 48), random_pairs(7, 20, seed=0)
    found = squeeze.features(images, images_per_pass)
    for mine, theirs in zip(found, squeeze.features(images, 7), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6 * float(theirs.max()))
        assert mine.is_contiguous(memory_format=torch.channels_last)
    alone = [
        squeeze.distances(squeeze.features(images[pair]), torch.tensor([[0, 1]])) for pair in pairs
    ]
    torch.testing.assert_close(
        squeeze.distances(found, pairs), torch.cat(alone), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize(("dtype", "near"), [("bf16", 0.02), ("fp16", 0.003)])
def test_sixteen_bit_features(squeeze: Lpips, dtype: str, near: float) -> None:
    images, pairs = make_images(4, 64), random_pairs(4, 6, seed=0)
    half = load("squeeze", dtype=dtype)
    exact, found = squeeze.features(images), half.features(images)
    assert half.fingerprint == squeeze.fingerprint
    for mine, theirs in zip(found, exact, strict=True):
        assert 2 * mine.nbytes == theirs.nbytes
    for ours, wanted in (
        (half.distances(found, pairs), squeeze.distances(exact, pairs)),
        (half.all_pairs(found), squeeze.all_pairs(exact)),
    ):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, wanted, rtol=near, atol=0)


def test_any_dtype_of_images(squeeze: Lpips) -> None:
    images = make_images(2, 40).half()
    wanted = squeeze.features(images.float())
    for given in (images, images.double(), images.contiguous(memory_format=torch.channels_last)):
        for mine, theirs in zip(squeeze.features(given), wanted, strict=True):
            torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x: x * 0 + 1.01, r"values from 1.01 to 1.01; .* in \[-1, 1\]"),
        (lambda x: x * 0 - 1.01, "from -1.01 to -1.01"),
        (lambda x: 127.5 * (x + 1), r"bring bytes there by x / 127.5 - 1"),
        (lambda x: x * torch.nan, "from nan to nan; they must be finite"),
        (lambda x: x[0], r"images has shape \[3, 40, 40\].*\[N, C, H, W\]"),
        (lambda x: x[:, :1], r"images has shape \[2, 1, 40, 40\].*\[N, 3, H, W\]"),
        (lambda x: x[:0], r"images has shape \[0, 3, 40, 40\].*at least one"),
        (lambda x: x.byte(), "images is uint8"),
    ],
)
def test_bad_images_get_a_sentence(squeeze: Lpips, change, sentence: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=sentence):
        squeeze.features(change(make_images(2, 40)))


def test_rounding_may_leave_the_range(squeeze: Lpips) -> None:
    images = make_images(2, 40)
    images[0, 0, 0, 0] = 1 + 5e-4
    assert squeeze.features(images)[0].isfinite().all()


def test_bad_pairs_and_passes_get_a_sentence(squeeze: Lpips) -> None:
    images = make_images(2, 40)
    with pytest.raises(UsageError, match="pairs holds 2; there are 2 images"):
        squeeze.distances(squeeze.features(images), torch.tensor([[0, 2]]))
    with pytest.raises(UsageError, match="images_per_pass is 0; it must be at least 1"):
        squeeze.features(images, 0)


def test_a_classifiers_features() -> None:
    judge = amfast.load_classifier("embedded", device="cpu")
    metric = classifier_lpips(judge)
    assert metric.name == "lpips[embedded]" and metric.fingerprint == judge.spec.fingerprint
    images, pairs = make_images(5, 96), random_pairs(5, 9, seed=0)
    found = metric.distances(metric.features(images, 2), pairs)
    with torch.no_grad():
        maps = judge.features(to_classifier_input(images, judge.spec))
    wanted = torch.zeros(9)
    for unit in (F.normalize(m, dim=1) for m in maps):
        difference = unit[pairs[:, 0]] - unit[pairs[:, 1]]
        wanted += difference.square().sum(1).mean((1, 2))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    every = metric.all_pairs(maps)
    torch.testing.assert_close(every[pairs[:, 0], pairs[:, 1]], wanted, rtol=1e-5, atol=1e-5)


def test_classifiers_that_give_no_maps() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 5))
    plain = wrap_module(module, device=CPU, dtype=torch.float32, size=4, name="tiny")
    with pytest.raises(UsageError, match="tiny names no feature layers, which LPIPS compares"):
        classifier_lpips(plain)
    flat = wrap_module(module, device=CPU, dtype=torch.float32, size=4, feature_layers=["0", "1"])
    metric = classifier_lpips(flat)
    with pytest.raises(
        UsageError, match=r"lpips\[Sequential\] has a layer that gives \[2, 16\]; LPIPS compares"
    ):
        metric.features(make_images(2, 4))


def test_a_file_and_the_store(
    squeeze: Lpips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMFAST_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="run 'amfast weights fetch squeezenet1_1'"):
        load_lpips("squeeze", device="cpu")
    with pytest.raises(WeightsError, match="fetch alexnet'") as of_a_metric:
        load_lpips("alex", device="cpu")
    assert "or give a file" not in str(of_a_metric.value)  # of the judge's, it would be
    whole = torchvision.models.squeezenet1_1(weights=None).state_dict()
    state = {**whole, **squeeze._network._plain.state_dict()}  # with a head, as published
    save_file({k: v.contiguous() for k, v in state.items()}, store.path("squeezenet1_1"))
    torch.save(state, tmp_path / "mine.pth")

    def no_network(*_: object) -> None:
        raise AssertionError("nothing is to be fetched")

    monkeypatch.setattr(socket, "socket", no_network)
    stored = load_lpips("squeeze", device="cpu")
    filed = load_lpips("squeeze", weights=tmp_path / "mine.pth", device="cpu")
    assert (stored.name, filed.name, squeeze.name) == (
        "lpips-squeeze",
        "lpips-squeeze-mine",
        "lpips-squeeze-random",
    )
    images = make_images(2, 40)
    for other in (stored, filed):
        assert other.fingerprint == squeeze.fingerprint
        for mine, theirs in zip(other.features(images), squeeze.features(images), strict=True):
            assert torch.equal(mine, theirs)
    torch.save({"features.0.bias": torch.zeros(64)}, tmp_path / "part.pth")
    with pytest.raises(WeightsError, match=r"do not fit the backbone of lpips-squeeze: missing"):
        load_lpips("squeeze", weights=tmp_path / "part.pth", device="cpu")


def test_linear_weights_of_ones_own(squeeze: Lpips, tmp_path: Path) -> None:
    theirs = package.LPIPS(net="squeeze", pnet_rand=True, verbose=False)
    for layer in theirs.lins:
        layer.model[1].weight.data.mul_(2)
    torch.save(theirs.state_dict(), tmp_path / "double.pth")
    double = load("squeeze", linear_weights=tmp_path / "double.pth")
    assert double.fingerprint != squeeze.fingerprint
    assert double.name == "lpips-squeeze-random-double"
    maps, pairs = squeeze.features(make_images(3, 40)), random_pairs(3, 4, seed=0)
    torch.testing.assert_close(double.distances(maps, pairs), 2 * squeeze.distances(maps, pairs))
    with pytest.raises(
        WeightsError, match=r"double.pth does not fit lpips-alex: expected lin1.model.1.weight of "
    ):
        load("alex", linear_weights=tmp_path / "double.pth")
    theirs.lins[6].model[1].weight.data.neg_()
    torch.save(theirs.state_dict(), tmp_path / "negative.pth")
    with pytest.raises(WeightsError, match="lin6.model.1.weight .*none of its values negative"):
        load("squeeze", linear_weights=tmp_path / "negative.pth")


def test_what_is_unknown_or_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="unknown LPIPS network 'alexnet'.*alex, vgg, squeeze"):
        load("alexnet")
    monkeypatch.setattr(lpips, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="lpips package: pip install lpips, or give a file"):
        load("alex")
