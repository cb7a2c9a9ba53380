"""The paper's classifiers: torchvision's logits on the same weights, and files that do not fit."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
import torchvision.datasets
import torchvision.models
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

import amfast
from amfast.classifiers import class_names, published, to_classifier_input
from amfast.classifiers.published import PUBLISHED, Architecture
from amfast.errors import UsageError, WeightsError
from amfast.imagenet import imagenet_labels
from amfast.weights import store
from amfast.weights.catalogue import CATALOGUE


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> str:
    """A name whose network takes no 240 MB."""
    monkeypatch.setitem(
        PUBLISHED, "alexnet", Architecture("squeezenet1_1", 224, 20, ("features.12",))
    )
    return "alexnet"


def load(name: str, **options: object) -> amfast.Classifier:
    return amfast.load_classifier(name, device="cpu", dtype="fp32", **options)  # type: ignore[arg-type]


def images(count: int = 2, side: int = 128) -> Tensor:
    random = torch.Generator().manual_seed(0)
    return 2 * torch.rand(count, 3, side, side, generator=random) - 1


@pytest.mark.parametrize("name", ["alexnet", "resnet50", "inception_v3"])
def test_logits_are_torchvisions(name: str) -> None:
    judge = load(name, weights="random")
    options = {"transform_input": True, "init_weights": False} if name == "inception_v3" else {}
    theirs = getattr(torchvision.models, name)(**options).eval()
    theirs.load_state_dict(judge.module.state_dict())  # type: ignore[attr-defined]
    size = judge.spec.size
    resized = F.interpolate((images() + 1) / 2, (size, size), mode="bilinear")
    mean, std = (torch.tensor(v)[:, None, None] for v in (judge.spec.mean, judge.spec.std))
    with torch.no_grad():
        wanted = theirs((resized - mean) / std)
        found = judge(to_classifier_input(images(), judge.spec))
    scale = wanted.abs().max()
    torch.testing.assert_close(found / scale, wanted / scale, rtol=0, atol=1e-5)
    assert judge.spec.labels == imagenet_labels() and judge.spec.name == f"{name}-random"
    assert size == (299 if name == "inception_v3" else 224)
    # Of these torch has no deterministic backward on CUDA, but for pools to a single number.
    parts = judge.module.modules()  # type: ignore[attr-defined]
    pools = [part for part in parts if isinstance(part, nn.AdaptiveAvgPool2d)]
    assert all(pool.output_size in (1, (1, 1)) for pool in pools)


def test_the_names_of_places365_are_those_of_its_list() -> None:
    """Laid out as the data set's own list, they have the hash that torchvision holds it to."""
    judge = load("resnet18-places365", weights="random")
    lines = [f"/{name[0]}/{name} {number}" for number, name in enumerate(judge.spec.labels)]
    found = hashlib.md5("\n".join(lines).encode(), usedforsecurity=False).hexdigest()
    assert found == torchvision.datasets.Places365._CATEGORIES_META[1]


def test_every_published_classifier_can_be_fetched() -> None:
    entries = {name for name, entry in CATALOGUE.items() if entry.kind == "classifier"}
    assert entries == PUBLISHED.keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_shapes_are_those_of_the_published_files(name: str) -> None:
    architecture = PUBLISHED[name]
    with torch.device("meta"):
        network = getattr(torchvision.models, architecture.function)(
            num_classes=architecture.num_classes
        )
    parameters = sum(p.numel() for p in network.parameters())
    assert (
        parameters
        == {
            "alexnet": 61_100_840,
            "resnet50": 25_557_032,
            "inception_v3": 27_161_264,
            "resnet50-robust": 25_557_032,
            "resnet18-places365": 11_363_757,
            "alexnet-places365": 58_499_245,
        }[name]
    )


def test_names_of_imagenet() -> None:
    labels = imagenet_labels()
    assert len(set(labels)) == 1000 and labels[3] == "tiger shark"


def test_a_file_and_the_store(small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMFAST_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="run 'amfast weights fetch alexnet'"):
        load(small)
    random = load(small, weights="random")
    state = {k: v.contiguous() for k, v in random.module.state_dict().items()}  # type: ignore[attr-defined]
    save_file(state, store.path(small))
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "w.tar")
    inputs = to_classifier_input(images(), random.spec)
    for other in (load(small), load(small, weights=tmp_path / "w.tar")):
        assert torch.equal(other(inputs), random(inputs))
        assert other.spec.fingerprint == random.spec.fingerprint
    assert load(small).spec.name == "alexnet"
    assert load(small, weights=tmp_path / "w.tar").spec.name == "w"
    assert random.spec.labels[:2] == ("0", "1")


def test_files_that_do_not_fit(small: str, tmp_path: Path) -> None:
    random = load(small, weights="random")
    good = {k: v.clone() for k, v in random.module.state_dict().items()}  # type: ignore[attr-defined]
    first = next(iter(good))
    path = tmp_path / "w.pth"
    for change, sentence in (
        ({first: good[first][:1]}, f"misshapen: {first} .*instead of"),
        ({first: torch.full_like(good[first], torch.inf)}, f"not finite: {first}"),
        ({"x": good[first]}, "unexpected: x"),
        ({first: None}, f"missing: {first}"),
    ):
        torch.save({k: v for k, v in {**good, **change}.items() if v is not None}, path)
        with pytest.raises(WeightsError, match=f"do not fit the classifier alexnet.*{sentence}"):
            load(small, weights=path)


def test_checkpoints_of_another_age() -> None:
    """Without the counters of batch norms, or with the prefix of data-parallel features."""
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    whole = {k: torch.rand(t.shape) for k, t in network.state_dict().items()}
    whole.pop("1.num_batches_tracked")
    published._fill(network, whole, "a network")
    assert torch.equal(network[0].weight, whole["0.weight"])
    nested = nn.ModuleDict({"features": nn.Sequential(nn.Conv2d(3, 4, 1))})
    prefixed = {
        "features.module.0.weight": torch.rand(4, 3, 1, 1),
        "features.module.0.bias": torch.rand(4),
    }
    published._fill(nested, prefixed, "a network")
    assert torch.equal(nested["features"][0].bias, prefixed["features.module.0.bias"])  # type: ignore[index]


def test_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("torchvision", "torchvision.models", "timm"):
        monkeypatch.setitem(__import__("sys").modules, library, None)
    with pytest.raises(UsageError, match="torchvision, built for this torch, is needed"):
        load("alexnet", weights="random")
    with pytest.raises(UsageError, match="timm:resnet18 needs timm: pip install timm"):
        load("timm:resnet18", weights="random")


def test_names_need_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMFAST_HOME", str(tmp_path))
    assert class_names("alexnet") == imagenet_labels()
    assert class_names("alexnet-places365")[182] == "hotel_room"
    assert class_names("embedded")[3] == "star"
