"""The catalogue against what publishers say, and against itself."""

from __future__ import annotations

import re

import pytest
from torchvision.models import (
    AlexNet_Weights,
    Inception_V3_Weights,
    ResNet50_Weights,
    SqueezeNet1_1_Weights,
    VGG16_Weights,
)

from amfast.errors import UsageError
from amfast.weights.catalogue import CATALOGUE, Entry, find

GENERATORS = {
    "biggan-128": (1e-5, 1e-6),
    "biggan-256": (1e-4, 1e-4),
    "biggan-deep-128": (1e-4, None),
    "biggan-deep-256": (1e-4, None),
    "biggan-deep-512": (1e-4, None),
}
CLASSIFIERS = (
    *("alexnet", "resnet50", "inception_v3"),
    *("resnet50-robust", "resnet18-places365", "alexnet-places365"),
)


METRICS = ("fid-inception", "vgg16", "squeezenet1_1")


def test_all_are_there():
    assert list(CATALOGUE) == [*GENERATORS, *CLASSIFIERS, *METRICS]
    kinds = {name: entry.kind for name, entry in CATALOGUE.items()}
    assert [name for name in kinds if kinds[name] == "generator"] == list(GENERATORS)
    assert [name for name in kinds if kinds[name] == "classifier"] == list(CLASSIFIERS)
    for name, eps in GENERATORS.items():
        assert (CATALOGUE[name].norm_eps, CATALOGUE[name].spectral_eps) == eps


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=list(CATALOGUE))
def test_entry(entry: Entry):
    assert entry == find(entry.name) and entry.licence and entry.citation
    assert len({file.name for file in entry.files}) == len(entry.files)
    for file in entry.files:
        assert "/" not in file.name and file.sources
        assert all(re.fullmatch(r"https?://[^/]+/\S+", source) for source in file.sources)
        assert len(set(file.sources)) == len(file.sources)
        assert file.sha256 is None or re.fullmatch(r"[0-9a-f]{8,64}", file.sha256)
        stated = re.search(r"-([0-9a-f]{8})\.pth$", file.name)
        if stated:  # torch's habit: a file is named after the start of its hash
            assert file.sha256 is not None and file.sha256.startswith(stated[1])


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("alexnet", AlexNet_Weights.IMAGENET1K_V1),
        ("resnet50", ResNet50_Weights.IMAGENET1K_V1),
        ("inception_v3", Inception_V3_Weights.IMAGENET1K_V1),
        ("vgg16", VGG16_Weights.IMAGENET1K_V1),
        ("squeezenet1_1", SqueezeNet1_1_Weights.IMAGENET1K_V1),
    ],
)
def test_torchvision_says_the_same(name, weights):
    (file,) = CATALOGUE[name].files
    assert file.sources == (weights.url,)
    assert file.size / 2**20 == pytest.approx(weights.meta["_file_size"], abs=1e-3)


def test_unknown_name():
    with pytest.raises(UsageError, match="'alexnte': did you mean alexnet"):
        find("alexnte")
