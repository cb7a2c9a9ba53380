from __future__ import annotations

import pytest
import torch

from amfast.device import keep_freed_memory, resolve_device, resolve_dtype
from amfast.device_errors import is_device_error, out_of_memory
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


ADVICE = "\nCUDA kernel errors might be asynchronously reported at some other API call"


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered" + ADVICE),
        torch.AcceleratorError("CUDA error: device-side assert triggered" + ADVICE),
        torch.AcceleratorError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"),
        RuntimeError("CUDA error: unspecified launch failure"),
        RuntimeError("CUDA driver error: misaligned address"),
        RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(...)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    ],
    ids=str,
)
def test_errors_that_only_a_fresh_process_survives(error: RuntimeError) -> None:
    assert is_device_error(error)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        torch.AcceleratorError("CUDA error: out of memory" + ADVICE),
        torch.AcceleratorError("CUDA error: operation not permitted when stream is capturing"),
        torch.AcceleratorError("CUDA error: no kernel image is available for execution on device"),
        torch.AcceleratorError("CUDA error: invalid configuration argument"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("the loader met an unknown error"),
        OSError("CUDA error: unknown error"),
        KeyboardInterrupt(),
    ],
    ids=str,
)
def test_errors_that_leave_the_device_as_it_was(error: BaseException) -> None:
    assert not is_device_error(error)
    assert out_of_memory(error) == any(w in str(error) for w in ("out of memory", "ALLOC_FAILED"))


def test_allocator_setting_is_harmless() -> None:
    keep_freed_memory()
    assert torch.ones(1 << 20).sum() == 1 << 20
