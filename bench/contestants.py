"""Who runs in an op's benchmark: the kernel, the reference, the reference compiled."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from amfast.ops import implementations
from tests.ops.maps import Draw, Function, run

CONTESTANTS = ["kernel", "reference", "compiled-reference"]


def contestant(name: str, op: str, function: Callable[..., Any], ref: Callable[..., Any]) -> Any:
    """One of ``CONTESTANTS``; the test is skipped where it cannot run on this machine."""
    if name == "kernel":
        served = {i.op: i.implementation for i in implementations() if i.device == "cpu"}
        if served[op] != "compiled":
            pytest.skip("the compiled kernels are not built")
        return function
    if name == "reference":
        return ref
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs g++")
    return torch.compile(ref, dynamic=False)


#: Images, channels and size of the maps behind the embedded generator's norms, and of one in
#: BigGAN-128's last block.
SHAPES = {
    "embedded-64": (20, 16, 64),
    "embedded-32": (20, 16, 32),
    "embedded-8": (20, 80, 8),
    "biggan-128-128": (4, 96, 128),
}


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


def draw(seed: int = 0) -> Draw:
    return Draw(torch.float32, seed)


def agree(function: Function, ref: Function, inputs: Sequence[Tensor]) -> None:
    """Raise unless results and gradients are the reference's, but for the order of sums."""
    for a, b in zip(run(function, inputs), run(ref, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))
