from __future__ import annotations

import pytest
import torch

from amfast.device import keep_freed_memory, resolve_device, resolve_dtype
from amfast.errors import UsageError


def pretend_cuda(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)


def test_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    assert resolve_dtype("auto", torch.device("cpu")) == torch.float32
    assert resolve_dtype("bf16", torch.device("cpu")) == torch.bfloat16
    for name in ("cuda", "cuda:3"):
        with pytest.raises(UsageError, match="sees no CUDA device"):
            resolve_device(name)


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "mps", "meta", "cpu:one"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(UsageError, match="unknown device"):
        resolve_device(name)


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((7, 0), torch.float16), ((7, 5), torch.float16), ((8, 0), torch.bfloat16)],
)
def test_with_cuda(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype
) -> None:
    pretend_cuda(monkeypatch, capability)
    assert resolve_device("auto") == torch.device("cuda:0")
    assert resolve_device("cuda") == torch.device("cuda:0")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    assert resolve_dtype("auto", torch.device("cuda:0")) == dtype
    with pytest.raises(UsageError, match="it has 2"):
        resolve_device("cuda:2")


def test_unknown_dtype() -> None:
    with pytest.raises(UsageError, match="unknown dtype"):
        resolve_dtype("fp8", torch.device("cpu"))  # type: ignore[arg-type]


def test_allocator_setting_is_harmless() -> None:
    keep_freed_memory()
    assert torch.ones(1 << 20).sum() == 1 << 20
