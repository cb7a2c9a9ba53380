"""Seconds per 200-step trial: the engine, the plain loop, the frozen compiled loop.

Every contestant is compared with the engine before it is timed. The networks are the embedded pair
on the CPU and, where there is a CUDA device, the full-size BigGANs with AlexNet and random weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pytest
import torch

from amfast.device import resolve_dtype
from amfast.generators.architectures import ARCHITECTURES, random_biggan
from amfast.generators.reference import BigGAN
from bench.contest import DTYPES, Problem, contest, kept_bytes
from bench.flops import STEPS, rows
from bench.machine import matmul_peak, synchronize
from bench.models import embedded_biggan
from bench.products import LATENTS, total


@dataclass(frozen=True)
class Case:
    """``engine_steps`` of all ``trials`` are timed, and ``loop_steps`` of an opponent's one."""

    row: str  # in bench.flops
    device: str
    model: Callable[[], BigGAN]
    classifier: str
    trials: int
    engine_steps: int
    loop_steps: int


def full_size(name: str) -> BigGAN:
    return random_biggan(ARCHITECTURES[name])


CASES = {
    "embedded-cpu": Case("embedded", "cpu", embedded_biggan, "embedded", 16, 2, 2),
    "biggan-256-cuda": Case(
        "BigGAN-256", "cuda", lambda: full_size("biggan-256"), "alexnet", 16, 40, 5
    ),
    "biggan-128-cuda": Case(
        "BigGAN-128", "cuda", lambda: full_size("biggan-128"), "alexnet", 16, 40, 20
    ),
}
HERE = [name for name, case in CASES.items() if case.device == "cpu" or torch.cuda.is_available()]


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """On CUDA every contestant's best convolutions."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    yield
    torch.backends.cudnn.benchmark = before


@lru_cache(maxsize=1)  # full-size models: one case at a time
def prepared(name: str) -> tuple[Problem, dict[str, Callable[[], object]]]:
    """A case's problem and its contestants, which have agreed."""
    case, device = CASES[name], torch.device(CASES[name].device)
    problem = Problem(
        case.model(),
        case.classifier,
        case.trials,
        LATENTS,
        case.engine_steps,
        device,
        resolve_dtype("auto", device),
    )
    can_compile = device.type == "cuda" or shutil.which("g++") is not None
    return problem, contest(problem, compiled=can_compile)


@lru_cache
def peak(device: torch.device, dtype: torch.dtype) -> float:
    return matmul_peak(device, dtype)


@pytest.mark.parametrize("contestant", ["engine", "plain", "compiled"])
@pytest.mark.parametrize("name", HERE)
def test_trial(name: str, contestant: str, benchmark: Any) -> None:
    case, (problem, contestants) = CASES[name], prepared(name)
    if contestant not in contestants:
        pytest.skip("torch.compile needs g++")
    ours, device = contestant == "engine", problem.device
    trials, steps = (case.trials, case.engine_steps) if ours else (1, case.loop_steps)
    calls = 1 if ours else case.loop_steps  # an opponent's call is one step

    def timed() -> None:
        for _ in range(calls):
            contestants[contestant]()
        synchronize(device)

    memory = PeakMemory(device)
    benchmark.group = f"trial {name}"
    benchmark.pedantic(timed, rounds=5 if device.type == "cpu" else 3, warmup_rounds=1)
    benchmark.extra_info |= {
        "contestant": contestant,
        "units": steps * trials,
        "device": str(device),
        "dtype": DTYPES[torch.float32 if contestant == "plain" else problem.dtype],
        "trials": trials,
        "steps": steps,
        "latents": LATENTS,
        "peak_bytes": memory.peak(),
    }
    if ours:
        benchmark.extra_info["kept_bytes_per_image"] = kept_bytes(problem)
    if benchmark.stats is not None:  # None under --benchmark-disable
        benchmark.extra_info |= rates(case, problem, benchmark.stats.stats.min / (steps * trials))


class PeakMemory:
    """Bytes that a CUDA device's allocator has given out at once, above what was out before."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.before = torch.cuda.memory_allocated(device)

    def peak(self) -> int | None:
        """None on a CPU, whose allocator does not count."""
        if self.device.type != "cuda":
            return None
        return torch.cuda.max_memory_allocated(self.device) - self.before


def rates(case: Case, problem: Problem, seconds: float) -> dict[str, float]:
    """What ``seconds`` per step of a trial come to.

    TFLOP/s count the work that is needed (``bench.products.Gflop.needed`` of the reduced form), for
    every contestant alike, so that they compare as seconds do.
    """
    row = next(row for row in rows() if row.name == case.row)
    needed = total(row.reduced(row.config)).needed + total(row.classifier[1]).needed
    flops = LATENTS * needed * 1e9 / seconds
    at_most = peak(problem.device, problem.dtype)
    return {
        "seconds_per_trial": STEPS * seconds,
        "images_per_s": LATENTS / seconds,
        "tflops": flops / 1e12,
        "matmul_peak_tflops": at_most / 1e12,
        "of_matmul_peak": flops / at_most,
    }
