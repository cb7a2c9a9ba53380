"""Which processes a run's trials are given to, by the options of ``amfast run``."""

from __future__ import annotations

import torch

from amfast.cluster import LocalExecutor, Spread
from amfast.cluster.ray import RayExecutor
from amfast.errors import UsageError
from amfast.runs.session import Executor, in_this_process


def choose_executor(
    name: str,
    device: str,
    devices: str | None,
    address: str | None,
    gpus_per_task: float | None,
    cpus_per_task: float,
    trials_per_task: int | None,
) -> Executor:
    """``UsageError`` for an unknown name, and for an option that belongs to another executor."""
    if name not in ("inline", "local", "ray"):
        raise UsageError(f"unknown executor {name!r}: use inline, local or ray")
    belongs = {
        "--devices": (devices is not None, ("local",)),
        "--address": (address is not None, ("ray",)),
        "--gpus-per-task": (gpus_per_task is not None, ("ray",)),
        "--cpus-per-task": (cpus_per_task != 1, ("ray",)),
        "--trials-per-task": (trials_per_task is not None, ("local", "ray")),
    }
    for option, (given, executors) in belongs.items():
        if given and name not in executors:
            raise UsageError(
                f"{option} is for --executor {' or '.join(executors)}, and this is {name}"
            )
    if name == "inline":
        return in_this_process
    if name == "ray":
        return Spread(RayExecutor(address, gpus_per_task, cpus_per_task), trials_per_task)
    return Spread(
        LocalExecutor((_all(device) if devices is None else devices).split(",")), trials_per_task
    )


def _all(device: str) -> str:
    """Every device of the type that is asked for."""
    if device.startswith("cpu") or not torch.cuda.is_available():
        return "cpu"
    return ",".join(f"cuda:{index}" for index in range(torch.cuda.device_count()))
