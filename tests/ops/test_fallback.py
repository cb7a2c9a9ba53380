"""A Triton kernel that fails where it is first used: its reference serves, and it is said once.

Put into the CPU's place, as other tests put kernels there that serve.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from amfast.errors import AmfastError
from amfast.ops import _fallback, _library, on_fallback, target_log_prob, target_log_prob_ref
from amfast.ops.target_log_prob import _forward_ref

pytest.importorskip("triton")

from triton.compiler.errors import CompilationError
from triton.runtime.errors import OutOfResources, PTXASError

LOGITS = torch.tensor([[0.0, 1.0, 2.0], [3.0, 1.0, 0.0]])
TARGETS = torch.tensor([0, 1])
FAILURES = [
    OutOfResources(300_000, 232_448, "shared memory"),
    PTXASError("ptxas fatal: Value 'sm_200' is not defined"),
    CompilationError(None, None, "cannot compile this"),
    RuntimeError("Failed to find C compiler. Please specify via CC environment variable"),
    subprocess.CalledProcessError(1, ["gcc", "main.c"]),
    FileNotFoundError(2, "No such file or directory", "ptxas"),
]

Serve = Callable[[Callable[..., object]], None]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Let a kernel of ``target_log_prob`` serve on the CPU, with the reference behind it."""
    _fallback.FAILED.clear()
    instead = torch.library.Library(_library.NAMESPACE, "IMPL")

    def put(kernel: Callable[..., object]) -> None:
        fallible = _fallback.with_fallback("target_log_prob", kernel, _forward_ref)
        instead.impl("target_log_prob", fallible, "CPU")

    yield put
    instead._destroy()
    _fallback.FAILED.clear()


class Failing:
    """A kernel whose every launch fails."""

    def __init__(self, error: Exception) -> None:
        self.error, self.launches = error, 0

    def __call__(self, *_: object) -> object:
        self.launches += 1
        raise self.error


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_the_reference_serves_and_it_is_said_once(serve: Serve, error: Exception) -> None:
    kernel, said = Failing(error), []
    serve(kernel)
    with on_fallback(said.append):
        for _ in range(3):
            found = target_log_prob(LOGITS, TARGETS)
            torch.testing.assert_close(found, target_log_prob_ref(LOGITS, TARGETS))
    assert kernel.launches == 1  # to fail takes seconds where a compiler is at work
    (sentence,) = said
    assert sentence.startswith("Triton's kernel of target_log_prob failed, which leaves its slower")
    assert "\n" not in sentence


def test_triton_itself_where_it_has_no_tensor_of_a_gpu(serve: Serve) -> None:
    said: list[str] = []
    serve(_library.triton_function(_library.TRITON["target_log_prob"]))
    with on_fallback(said.append):
        found = target_log_prob(LOGITS, TARGETS)
    torch.testing.assert_close(found, target_log_prob_ref(LOGITS, TARGETS))
    assert len(said) == 1


def test_without_a_listener_it_is_a_warning(serve: Serve) -> None:
    serve(Failing(FAILURES[0]))
    with pytest.warns(RuntimeWarning, match="Triton's kernel of target_log_prob failed"):
        target_log_prob(LOGITS, TARGETS)


def test_strict_refuses(serve: Serve) -> None:
    serve(Failing(FAILURES[0]))
    said: list[str] = []
    refusal = "shared memory.*--strict takes no slower path"
    with pytest.raises(AmfastError, match=refusal), on_fallback(said.append, strict=True):
        target_log_prob(LOGITS, TARGETS)
    assert not said
    assert "shared memory" in "".join(_library.slower_paths("cuda"))  # known before a next run


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    ],
    ids=str,
)
def test_what_a_reference_cannot_help(serve: Serve, error: Exception) -> None:
    serve(Failing(error))
    with pytest.raises(type(error), match=str(error).replace("[", r"\[")):
        target_log_prob(LOGITS, TARGETS)
    assert not _fallback.FAILED


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_slower_paths(device: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    missing = _library.load_compiled(tmp_path / "_C.so", without=None)
    unwanted = _library.load_compiled(tmp_path / "_C.so", without="AMFAST_NO_EXT is set")
    monkeypatch.setenv("AMFAST_NO_EXT", "1")
    monkeypatch.setitem(_library.LIBRARIES, device, unwanted)
    assert _library.slower_paths(device) == []
    monkeypatch.delenv("AMFAST_NO_EXT")
    monkeypatch.setattr(_library, "PACKAGE", tmp_path)
    monkeypatch.setattr(_library, "_has_kernel", lambda op, device: False)
    monkeypatch.setattr(_library, "WITHOUT_TRITON", "triton finds no C compiler")
    monkeypatch.setitem(_library.LIBRARIES, device, missing)
    (said,) = _library.slower_paths(device)
    assert ("_C.so is not there" if device == "cpu" else "triton finds no C compiler") in said
    (tmp_path / "_C_cuda.so").write_bytes(b"of another torch")
    assert any("_C.so" in said for said in _library.slower_paths(device))
