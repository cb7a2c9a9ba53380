from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import amfast
from amfast.classifiers.protocol import Classifier, ClassifierSpec, to_classifier_input, wrap_module
from amfast.errors import UsageError, WeightsError

CPU = torch.device("cpu")


def spec(size: int, **values: object) -> ClassifierSpec:
    return ClassifierSpec("x", size, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), (), "0", **values)  # type: ignore[arg-type]


def test_normalisation_by_hand() -> None:
    images = torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    found = to_classifier_input(images, spec(8))
    expected = torch.tensor([(0 - 0.5) / 0.2, (0.5 - 0.4) / 0.3, (1 - 0.3) / 0.4])
    torch.testing.assert_close(found[0, :, 4, 4], expected)


@pytest.mark.parametrize("resize", ["bilinear", "nearest", "bilinear_antialias"])
def test_resizing_keeps_constants_and_sizes(resize: str) -> None:
    images = torch.full((2, 3, 5, 5), 0.2)
    found = to_classifier_input(images, spec(12, resize=resize))
    assert found.shape == (2, 3, 12, 12)
    assert found.flatten(2).std(dim=2).max() < 1e-6


def test_wrapping_copies_freezes_and_counts_classes() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Dropout(0.9)).train()
    wrapped = wrap_module(module, device=CPU, dtype=torch.bfloat16, size=2, name="tiny")
    assert isinstance(wrapped, Classifier)
    assert wrapped.spec.labels == ("0", "1", "2", "3", "4")
    assert wrapped.spec.name == "tiny"
    assert module.training
    assert all(p.requires_grad and p.dtype == torch.float32 for p in module.parameters())
    x = torch.randn(3, 3, 2, 2, requires_grad=True)
    torch.testing.assert_close(wrapped(x), wrapped(x))  # no dropout
    wrapped(x).float().sum().backward()
    assert x.grad is not None


class Mixed(nn.Module):
    """A convolution, a norm, and a product that no layer holds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.head = nn.Parameter(torch.randn(4, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)).mean(dim=(2, 3)) @ self.head


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_sixteen_bits_are_autocast(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    module = Mixed()
    wrapped = wrap_module(module, device=CPU, dtype=dtype, size=8)
    weights = wrapped.module.state_dict()  # type: ignore[attr-defined]
    half = dtype in (torch.bfloat16, torch.float16)
    assert weights["conv.weight"].dtype == wrapped.dtype == dtype
    assert (
        weights["norm.weight"].dtype == weights["head"].dtype == (torch.float32 if half else dtype)
    )
    x = torch.randn(2, 3, 8, 8)
    logits = wrapped(x)  # of two dtypes in 16 bits: autocast brings them together
    exact = wrap_module(module, device=CPU, dtype=torch.float64, size=8)(x)
    torch.testing.assert_close(logits.double(), exact, rtol=0.02, atol=0.02)


def test_embedded_classifiers() -> None:
    known = amfast.load_classifier("embedded", device="cpu")
    unseen = amfast.load_classifier("embedded-unseen", device="cpu")
    generator = amfast.load_generator("embedded", device="cpu")
    assert known.spec.labels == generator.spec.labels
    assert len(unseen.spec.labels) >= 6
    assert not set(unseen.spec.labels) & set(generator.spec.labels)
    assert known(torch.zeros(2, 3, 64, 64)).shape == (2, len(known.spec.labels))


def test_bad_names_and_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="random weights are for alexnet, .*; embedded has"):
        amfast.load_classifier("embedded", weights="random")
    with pytest.raises(UsageError, match="unknown classifier 'alexnet-9'"):
        amfast.load_classifier("alexnet-9")
    generator = Path(amfast.__file__).parent / "embedded" / "generator.safetensors"
    with pytest.raises(WeightsError, match="not an embedded classifier's"):
        amfast.load_classifier("embedded", weights=generator)
