"""What a benchmark ran on: its name, and how fast it multiplies matrices."""

from __future__ import annotations

import platform
import re
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch


def facts() -> dict[str, Any]:
    """What a figure depends on: GPU (None without one), CPU model, threads, torch."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "gpu": gpu,
        "cpu_model": cpu_model(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    if cpuinfo.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def slug(machine: dict[str, Any]) -> str:
    """The name under which a device's results are stored: the GPU's, or the CPU's and its threads.

    Trade marks and clock speeds in a CPU's name are dropped.
    """
    if machine["gpu"]:
        name = machine["gpu"]
    else:
        name = re.sub(r"\((R|TM)\)|@.*|\bCPU\b", " ", machine["cpu_model"], flags=re.IGNORECASE)
        name += f" {machine['threads']} threads"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_peak(device: torch.device, dtype: torch.dtype, rounds: int = 10) -> float:
    """FLOP/s of a large square product of random matrices, the best of ``rounds``."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(rounds + 3):  # the first warm up, and can only be slower
        synchronize(device)
        began = time.perf_counter()
        a @ b
        synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best


@lru_cache
def copy_bandwidth(device: torch.device, rounds: int = 20) -> float:
    """Bytes a second, read and written, of copying what no cache holds: the best of ``rounds``."""
    count = 2**28 if device.type == "cuda" else 2**25
    source = torch.randn(count, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(rounds + 3):  # as above
        synchronize(device)
        began = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * source.nbytes / best
