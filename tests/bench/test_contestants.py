"""Who runs in an op's benchmark."""

from __future__ import annotations

import pytest
import torch

from amfast.ops import _library
from bench.contestants import contestant, triton_serves
from bench.machine import copy_bandwidth


def test_triton_serves_only_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, target = torch.zeros(2, 3), torch.tensor([0, 1])
    served = torch.ops.amfast.target_log_prob(logits, target)
    others = (torch.zeros(7), torch.zeros(2, 7), torch.zeros(7))
    monkeypatch.setattr(_library, "triton_function", lambda where: lambda *given: others)
    with triton_serves("target_log_prob", on="CPU"):
        assert torch.ops.amfast.target_log_prob(logits, target)[0].shape == (7,)
    again = torch.ops.amfast.target_log_prob(logits, target)
    for before, after in zip(served, again, strict=True):
        assert torch.equal(before, after)


def test_triton_runs_beside_a_compiled_kernel_on_cuda_alone() -> None:
    with pytest.raises(pytest.skip.Exception, match="no Triton kernel of target_log_prob"):
        contestant("triton", "target_log_prob", abs, abs, "cpu")


def test_the_bandwidth_of_a_copy_is_measured_once() -> None:
    first = copy_bandwidth(torch.device("cpu"), rounds=1)
    assert first > 1e8 and copy_bandwidth(torch.device("cpu"), rounds=1) == first
