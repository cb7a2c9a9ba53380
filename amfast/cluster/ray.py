"""Shards on a Ray cluster, or on a Ray of this machine's own: a task for each.

Ray is imported where it is used: it comes with the extra ``ray``.
"""

from __future__ import annotations

import ipaddress
import math
import os
import queue
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from amfast.cluster.shards import Event, Shard, ShardDone, ShardLost
from amfast.cluster.work import Order, do_shard, sentence
from amfast.device import keep_freed_memory
from amfast.device_errors import is_device_error
from amfast.errors import AmfastError, RunError, UsageError
from amfast.runs.session import Job

_POISONED = 70  # the exit status of a process whose device has failed


@dataclass(frozen=True)
class RayExecutor:
    """A ``WorkerSource``: tasks on the Ray cluster at ``address``.

    ``address`` is ``HOST:PORT``, ``auto`` for the cluster that this machine belongs to, or None for
    a Ray of this process's own. Each task has ``gpus`` of a node (whole ones, or a part; by default
    one where the run is on CUDA) and ``cpus``. Nodes need amfast in the versions of this process,
    the run's kind of device, the weights and the run directory under the same paths.

    Raises ``UsageError`` where Ray is not installed, or for an address that other machines reach
    while Ray's token authentication is off here: whoever reaches such a cluster can run code on it.
    ``UsageError`` too for an address of another form; ``RunError`` where nothing answers.
    """

    address: str | None = None
    gpus: float | None = None
    cpus: float = 1

    def __post_init__(self) -> None:
        if not (0 < self.cpus < math.inf and (self.gpus is None or 0 <= self.gpus < math.inf)):
            raise UsageError(
                f"a task with {self.cpus} cpus and {self.gpus} gpus: give --cpus-per-task above "
                "and --gpus-per-task from 0"
            )
        if find_spec("ray") is None:
            raise UsageError(
                "--executor ray needs Ray: pip install 'amfast[ray]'; without it, --executor local "
                "works on the devices of this machine"
            )
        if self.address is not None:
            _host_and_port(self.address)
            _refuse_open(self.address)

    @contextmanager
    def __call__(self, run: Path, job: Job) -> Iterator[_Tasks]:
        import ray

        device = job.generator.class_embeddings.device.type
        gpus = self.gpus if self.gpus is not None else float(device == "cuda")
        if device == "cuda" and not gpus:
            raise UsageError("the run is on CUDA: its tasks need --gpus-per-task above 0")
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if self.address is None:
            quiet |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        try:
            if listens := _host_and_port(self.address):
                # Ray itself tries for minutes.
                socket.create_connection(listens, timeout=10).close()
            context: Any = ray.init(self.address, **quiet)
        except (OSError, ValueError, RuntimeError) as error:
            at = self.address or "this machine"
            raise RunError(f"no Ray answers at {at}: {sentence(error)}") from None
        try:
            if self.address is not None:
                _refuse_open(context.address_info["gcs_address"])
            yield _Tasks(run, "cuda:0" if device == "cuda" else "cpu", gpus, self.cpus)
        finally:
            ray.shutdown()


def _host_and_port(address: str | None) -> tuple[str, int] | None:
    """None where an address names neither; ``UsageError`` for one that is none."""
    if address is None or address == "auto":
        return None
    found = re.fullmatch(r"\[?([\w.:%-]+?)\]?:([0-9]{1,5})", address)
    if found is None or not 0 < int(found[2]) < 65536:
        raise UsageError(
            f"--address {address!r}: give HOST:PORT of the cluster's first node, or auto on one of "
            "its nodes"
        )
    return found[1], int(found[2])


def _refuse_open(address: str) -> None:
    """``UsageError`` for an address that others reach, where Ray asks nobody for a token."""
    if address == "auto" or _is_loopback(address) or os.environ.get("RAY_AUTH_MODE") == "token":
        return
    raise UsageError(
        f"the Ray cluster at {address} can be reached from other machines, and whoever reaches it "
        "can run code on all of it: start it with RAY_AUTH_MODE=token and a token "
        "(ray get-auth-token --generate), and set RAY_AUTH_MODE=token here as well"
    )


def _is_loopback(address: str) -> bool:
    host, _ = _host_and_port(address) or ("", 0)
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False  # connecting will say so
    return all(ipaddress.ip_address(ip.partition("%")[0]).is_loopback for ip in found)


class _Tasks:
    """``Workers``: Ray decides how many tasks run at once, and where."""

    def __init__(self, run: Path, device: str, gpus: float, cpus: float) -> None:
        import ray

        # The retries are ours (``amfast.cluster.spread``). A process is used again for the networks
        # that it has loaded, which Ray would not do by itself where tasks have GPUs.
        kind = ray.remote(num_gpus=gpus, num_cpus=cpus, max_retries=0, max_calls=0)
        self._task = kind(_stream)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        there = [(node.get("CPU", 0), node.get("GPU", 0)) for node in nodes]
        self.together = sum(int(min(c / cpus, g / gpus if gpus else c / cpus)) for c, g in there)
        if not self.together:
            has = ", ".join(f"{c:g} and {g:g}" for c, g in sorted(set(there), reverse=True))
            raise RunError(
                f"no node of the Ray cluster has room for a task of {cpus:g} cpus and {gpus:g} gpus"
                f": they have {has}"
            )
        self.description = f"Ray, {self.together} at a time"
        self._threads = max(1, int(cpus)) if device == "cpu" else None
        self._run, self._device = run, device
        self._every = max(0.5, self.together / 50)  # all of them tell fifty times a second at most
        self._streams: dict[Any, Shard] = {}  # by Ray's generators

    def start(self, shard: Shard) -> None:
        order = Order(self._run, shard, self._device, self._threads, self._every)
        self._streams[self._task.remote(order)] = shard

    def events(self) -> Iterator[tuple[Shard, Event]]:
        import ray
        from ray.exceptions import RayError

        streams: Any = list(self._streams)
        ray.wait(streams, num_returns=1, timeout=1)
        ready: Any = ray.wait(streams, num_returns=len(streams), timeout=0)[0]
        for stream in ready:
            event: Event
            try:
                event = ray.get(next(stream))
            except StopIteration:
                event = ShardLost("its task ended without a word")
            except RayError as error:
                event = ShardLost(sentence(error))
            shard = self._streams[stream]
            if isinstance(event, ShardDone | ShardLost):
                del self._streams[stream]
            yield shard, event


def _stream(order: Order) -> Iterator[Event]:
    """In Ray's process: do the shard in a thread, and pass on what it tells as it comes."""
    keep_freed_memory()
    told: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def do() -> None:
        try:
            do_shard(order, told.put)
        except (AmfastError, RuntimeError, MemoryError) as error:
            told.put(ShardLost(f"{socket.gethostname()}: {sentence(error)}"))
            if is_device_error(error):
                os._exit(_POISONED)

    with ThreadPoolExecutor(1) as pool:
        doing = pool.submit(do)
        event: Event | None = None
        while not isinstance(event, ShardDone | ShardLost):
            try:
                event = told.get(timeout=1)
            except queue.Empty:
                if doing.done() and told.empty():
                    doing.result()  # raises what nobody foresaw
                continue
            yield event
