"""A classifier as a feature network, through one whose maps are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from amfast.classifiers.protocol import ModuleClassifier, to_classifier_input, wrap_module
from amfast.errors import UsageError
from amfast.metrics.features import (
    ClassifierFeatures,
    FeatureNetwork,
    check_features,
    check_images,
    measure_name,
)


class Squares(nn.Module):
    """Gives its inputs' first numbers as logits, past a layer of their squares."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Identity(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        self.last(self.first(x).square())
        return x.flatten(1)[:, :2]


def judge(dtype: torch.dtype, layers: tuple[str, ...] = ("first", "last")) -> ModuleClassifier:
    return wrap_module(
        Squares(),
        device=torch.device("cpu"),
        dtype=dtype,
        name="judge",
        size=8,
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.4),
        labels=("a", "b"),
        feature_layers=layers,
    )


def images(count: int = 5) -> Tensor:
    return 2 * torch.rand(count, 3, 12, 12, generator=torch.Generator().manual_seed(0)) - 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_are_the_last_maps_pooled(dtype: torch.dtype) -> None:
    classifier = judge(dtype)
    network = ClassifierFeatures(classifier)
    assert isinstance(network, FeatureNetwork)
    assert (network.name, network.fingerprint) == ("judge", classifier.spec.fingerprint)
    features, logits = network(images())
    inputs = to_classifier_input(images(), classifier.spec, dtype=dtype)
    assert torch.equal(features, inputs.square().float().mean(dim=(2, 3)))
    assert torch.equal(logits, inputs.flatten(1)[:, :2].float())
    halves = [network(part)[0] for part in images().split(2)]
    torch.testing.assert_close(torch.cat(halves), features)


def test_only_the_published_inception_gives_the_bare_name() -> None:
    assert measure_name("fid", "fid-inception") == "fid"
    assert measure_name("fid", "alexnet") == "fid[alexnet]"
    assert measure_name("fid", "fid-inception-random") == "fid[fid-inception-random]"


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (images()[0], r"images are \[3, 12, 12\].*\[N, 3, H, W\]"),
        (images()[:, :1], r"images are \[5, 1, 12, 12\]"),
        (images().byte(), "of torch.uint8; they must be"),
        ((images() + 1) * 127.5, r"images range from .* must be in \[-1, 1\]: divide bytes by"),
        (images() - 1, "images range from -"),
        (images() * math.nan, "leave out images that are not finite"),
    ],
)
def test_images_are_checked(bad: Tensor, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        ClassifierFeatures(judge(torch.float32))(bad)


def test_a_classifier_that_names_no_layers_is_refused() -> None:
    with pytest.raises(UsageError, match="judge names no feature layers"):
        ClassifierFeatures(judge(torch.float32, layers=()))(images())


def test_rounding_is_no_range() -> None:
    check_images(torch.tensor([-1.0, 1.0]).bfloat16().mul(1.004).expand(1, 3, 4, 2))
    check_images(images(0))


def test_features_are_checked() -> None:
    check_features("features", torch.empty(0, 4))
    for bad, sentence in [
        (torch.ones(4), r"features are \[4\].*\[N, D\]"),
        (torch.ones(4, 0), r"features are \[4, 0\]"),
        (torch.ones(4, 2).int(), "of torch.int32"),
        (torch.tensor([[1.0, math.nan], [1.0, 1.0]]), "NaN or infinity in 1 of 2 rows"),
    ]:
        with pytest.raises(UsageError, match=sentence):
            check_features("features", bad)
