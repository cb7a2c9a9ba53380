"""What this machine and installation offer, as data."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch

from amfast.device import resolve_device, resolve_dtype
from amfast.ops import implementations, slower_paths


def examine() -> dict[str, Any]:
    """Versions, devices with the precision that ``auto`` picks, and each op's implementation.

    ``slower`` is why operators on the device of ``auto`` run slower than they could.
    """
    devices = {
        "cpu": f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    }
    for index in range(torch.cuda.device_count()):
        devices[f"cuda:{index}"] = torch.cuda.get_device_name(index)
    chosen = resolve_device("auto")
    devices["auto"] = f"{chosen}, {str(resolve_dtype('auto', chosen)).removeprefix('torch.')}"
    packages = ("amfast", "numpy", "safetensors")
    return {
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            **{package: version(package) for package in packages},
        },
        "devices": devices,
        "slower": slower_paths(chosen.type),
        "ops": [asdict(op) for op in implementations()],
    }
