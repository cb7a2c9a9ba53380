"""What the tests of the ops over maps ``[N, C, H, W]`` share: inputs, a run, a comparison."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from amfast.ops import implementations
from tests.tolerances import HALF_ERROR_FACTOR, TOLERANCES

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
HALF_DTYPES = [torch.bfloat16, torch.float16]
#: N, C, H, W: empty, tiny, odd, below, at and above the 16 channels of an inner loop.
SHAPES = [
    (0, 3, 2, 2),
    (2, 0, 2, 2),
    (1, 1, 1, 1),
    (2, 3, 1, 5),
    (1, 15, 3, 1),
    (3, 16, 2, 3),
    (2, 17, 4, 3),
    (1, 48, 5, 4),
    (4, 33, 6, 6),
]
Function = Callable[..., "Tensor | tuple[Tensor, ...]"]


def accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


class Draw:
    """Seeded inputs: maps in ``dtype``, channels_last unless told, and factors beside them."""

    def __init__(self, dtype: torch.dtype, seed: int = 0) -> None:
        self.dtype, self.random = dtype, torch.Generator().manual_seed(seed)

    def map(self, *size: int, channels_last: bool = True) -> Tensor:
        drawn = torch.randn(size, generator=self.random, dtype=torch.float64).to(self.dtype)
        return drawn.contiguous(memory_format=torch.channels_last) if channels_last else drawn

    def factor(self, images: int, channels: int) -> Tensor:
        drawn = torch.randn(images, channels, generator=self.random, dtype=torch.float64)
        return drawn.to(accumulator(self.dtype))


def run(function: Function, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Results and gradients of all inputs, for seeded gradients of the results."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    results = _as_tuple(function(*leaves))
    gradients = [g.to(r.dtype) for g, r in zip(_gradients(results), results, strict=True)]
    return [*(r.detach() for r in results), *torch.autograd.grad(results, leaves, gradients)]


def exact(reference: Function, inputs: Sequence[Tensor]) -> list[Tensor]:
    """What ``run`` should give: the same values, inputs' and gradients', in float64 throughout."""
    leaves = [x.detach().double().requires_grad_() for x in inputs]
    results = _as_tuple(reference(*leaves))
    gradients = [g.to(inputs[0].dtype).double() for g in _gradients(results)]
    return [*(r.detach() for r in results), *torch.autograd.grad(results, leaves, gradients)]


def _as_tuple(results: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return results if isinstance(results, tuple) else (results,)


def _gradients(results: Sequence[Tensor]) -> list[Tensor]:
    random = torch.Generator().manual_seed(1)
    drawn = [torch.randn(r.shape, generator=random, dtype=torch.float64) for r in results]
    return [g.to(r.device) for g, r in zip(drawn, results, strict=True)]


def assert_near(actual: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    """Within the tolerance of each result's own dtype, relative to its largest value."""
    assert len(actual) == len(wanted)
    for a, w in zip(actual, wanted, strict=True):
        rtol, atol = TOLERANCES[a.dtype]
        scale = max(1.0, float(w.abs().max())) if w.numel() else 1.0
        torch.testing.assert_close(
            a.double(), w.double(), rtol=rtol, atol=atol * scale, equal_nan=True
        )


def assert_half_error_is_pytorchs(
    ours: Sequence[Tensor], theirs: Sequence[Tensor], wanted: Sequence[Tensor]
) -> None:
    for a, b, w in zip(ours, theirs, wanted, strict=True):
        error = (a.double() - w).abs().max()
        assert error <= HALF_ERROR_FACTOR * (b.double() - w).abs().max()


def assert_channels_last(value: Tensor) -> None:
    assert value.is_contiguous(memory_format=torch.channels_last)


def saved(function: Function, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The tensors that autograd keeps for the backward."""
    kept: list[Tensor] = []

    def remember(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        function(*(x.detach().requires_grad_() for x in inputs))
    return kept


def examples(usual: int) -> int:
    """How many cases to draw: few where kernels are interpreted or run on threads."""
    return usual if "AMFAST_TEST_OPS" not in os.environ else 1 + usual // 8


def served(*ops: str) -> set[str]:
    """Which implementations serve these ops on the CPU."""
    return {i.implementation for i in implementations() if i.device == "cpu" and i.op in ops}


def meant() -> set[str]:
    """The implementation that this run of the tests is about."""
    kernels = os.environ.get("AMFAST_NO_EXT", "") in ("", "0") or "AMFAST_TEST_OPS" in os.environ
    return {"compiled" if kernels else "reference"}
