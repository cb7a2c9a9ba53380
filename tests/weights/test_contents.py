"""Whether the tensors of a file are the model's, and numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from amfast.classifiers.published import load_published
from amfast.errors import WeightsError
from amfast.weights.contents import check_contents


def test_a_model_that_amfast_does_not_know_holds_numbers() -> None:
    check_contents("lpips-of-tomorrow", {"a": torch.ones(2), "n": torch.tensor(3)})
    nan = torch.tensor([1.0, torch.nan])
    with pytest.raises(WeightsError, match="it holds numbers that are not finite: a, b$"):
        check_contents("lpips-of-tomorrow", {"a": nan, "b": nan * 2, "c": torch.ones(2)})


def test_every_tensor_of_a_known_model_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = load_published("alexnet", "random")[0].state_dict()
    looked_at: list[int] = []
    isfinite = Tensor.isfinite

    def counted(tensor: Tensor) -> Tensor:
        looked_at.append(tensor.data_ptr())
        return isfinite(tensor)

    monkeypatch.setattr(Tensor, "isfinite", counted)
    check_contents("alexnet", tensors)
    assert sorted(looked_at) == sorted(tensor.data_ptr() for tensor in tensors.values())
    tensors["classifier.6.bias"] = torch.full((1000,), torch.inf)
    with pytest.raises(WeightsError, match=r"not finite: classifier\.6\.bias"):
        check_contents("alexnet", tensors)
