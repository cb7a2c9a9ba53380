"""Who runs in an op's benchmark: the kernel, Triton's beside it, the reference, it compiled."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from amfast.ops import _library, implementations
from bench.machine import copy_bandwidth, synchronize
from tests.ops.maps import Draw, Function, run
from tests.tolerances import TOLERANCES

#: "kernel" is what serves; "triton" its Triton kernel, where a compiled one serves on CUDA.
CONTESTANTS = ["kernel", "triton", "reference", "compiled-reference"]

#: Where ops are timed.
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def contestant(
    name: str, op: str, function: Callable[..., Any], ref: Callable[..., Any], device: str
) -> Any:
    """One of ``CONTESTANTS``; the test is skipped where it cannot run on this machine."""
    served = {i.op: i.implementation for i in implementations() if i.device == device}
    if name == "kernel":
        if served[op] == "reference":
            pytest.skip(f"no kernel of {op} serves on {device}")
        return function
    if name == "triton":
        if device != "cuda" or served[op] != "compiled" or op not in _library.TRITON:
            pytest.skip(f"no Triton kernel of {op} stands beside a compiled one on {device}")
        return function
    if name == "reference":
        return ref
    if device == "cpu" and shutil.which("g++") is None:
        pytest.skip("torch.compile needs g++")
    return torch.compile(ref, dynamic=False)


@contextmanager
def triton_serves(op: str, on: str = "CUDA") -> Iterator[None]:
    """Inside, ``op`` and its backward run as Triton kernels, whatever serves otherwise."""
    instead = torch.library.Library(_library.NAMESPACE, "IMPL")
    try:
        for name in (op, f"{op}_backward"):
            instead.impl(name, _library.triton_function(_library.TRITON[name]), on)
        yield
    finally:
        instead._destroy()


#: Images, channels and size of the maps behind the embedded generator's norms and, on the CPU with
#: few images, of those in BigGAN-128's and BigGAN-256's last blocks.
SHAPES = {
    "cpu": {
        "embedded-64": (20, 16, 64),
        "embedded-32": (20, 16, 32),
        "embedded-8": (20, 80, 8),
        "biggan-128-128": (4, 96, 128),
    },
    "cuda": {
        "biggan-128-128": (20, 96, 128),
        "biggan-256-128": (20, 192, 128),
        "biggan-256-256": (20, 96, 256),
    },
}
#: Every device with every of its shapes.
PLACES = [(device, shape) for device in DEVICES for shape in SHAPES[device]]
#: What the engine uses there.
DTYPES = {"cpu": torch.float32, "cuda": torch.bfloat16}


def time_op(
    benchmark: Any,
    op: str,
    name: str,
    place: tuple[str, str],
    functions: tuple[Function, Function],
    inputs: Sequence[Tensor],
    moved: float,
) -> None:
    """Compare an op's contestant with the reference, then time it, forward and backward.

    ``place`` is one of ``PLACES``, ``functions`` the op and its reference; ``inputs``, on the CPU,
    go to the place's device. ``moved`` are the elements that have to be read and written at least.
    """
    device, shape = torch.device(place[0]), place[1]
    function = contestant(name, op, *functions, device.type)
    with triton_serves(op) if name == "triton" else nullcontext():
        there = [x.to(device) for x in inputs]
        agree(function, functions[1], there)
        run = forward_and_backward(function, there)
        moved_bytes = moved * inputs[0].element_size()
        time_run(benchmark, f"{op} {shape} {device}", name, device, run, moved_bytes)


def time_run(
    benchmark: Any,
    group: str,
    name: str,
    device: torch.device,
    run: Callable[[], object],
    moved_bytes: float,
) -> None:
    """Time ``run``, which has to move so many bytes, as a contestant of ``group``."""
    # A GPU is given several calls at once, so that the host's share is not what is timed.
    calls = 10 if device.type == "cuda" else 1

    def timed() -> None:
        for _ in range(calls):
            run()
        synchronize(device)

    benchmark.group = group
    benchmark(timed)
    benchmark.extra_info.update(contestant=name, units=calls)
    if benchmark.stats is not None:  # None under --benchmark-disable
        bandwidth = moved_bytes * calls / benchmark.stats.stats.min
        benchmark.extra_info["GB/s"] = bandwidth / 1e9
        benchmark.extra_info["of_copy"] = bandwidth / copy_bandwidth(device)


def forward_and_backward(
    function: Function, inputs: Sequence[Tensor]
) -> Callable[[], Sequence[Tensor]]:
    """What is timed: results, then gradients of all inputs for given gradients of the results."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    gradients = [torch.randn_like(r) for r in _tuple(function(*leaves))]

    def step() -> Sequence[Tensor]:
        results = _tuple(function(*leaves))
        return [*results, *torch.autograd.grad(results, leaves, gradients)]

    return step


def _tuple(results: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return results if isinstance(results, tuple) else (results,)


def draw(device: str = "cpu", seed: int = 0) -> Draw:
    return Draw(DTYPES[device], seed)


def agree(function: Function, ref: Function, inputs: Sequence[Tensor]) -> None:
    """Raise unless results and gradients are the reference's, but for the order of sums.

    In float32 torch's resizing, a reference here, is off by up to 5e-5 of the largest value: it
    rounds coordinates.

    In 16 bits as a whole: where a relu's input rounds to either side of zero, one of millions of
    gradients is there or is not.
    """
    for a, b in zip(run(function, inputs), run(ref, inputs), strict=True):
        if inputs[0].dtype == torch.float32:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))
        else:
            error = float((a.double() - b.double()).norm() / b.double().norm())
            assert error < TOLERANCES[inputs[0].dtype].rtol, f"differs by {error:.4f} of its norm"
