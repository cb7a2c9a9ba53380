"""Shards on one machine: a process for each device."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import cast

import torch

from amfast.cluster.shards import Event, Shard, ShardDone, ShardLost
from amfast.cluster.work import Order, do_shard, sentence
from amfast.device import keep_freed_memory, resolve_device
from amfast.errors import AmfastError, UsageError
from amfast.runs.session import Job

_PATIENCE = 5  # seconds that a process has to end when it is told to


class LocalExecutor:
    """A ``WorkerSource``: one process per device, which may be named several times.

    Processes on a CPU share its cores. Raises ``UsageError`` for devices that are not there, or
    are of another type than the run's.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        if not devices:
            raise UsageError("no device to work on: give --devices cuda:0,cuda:1, say")
        self._devices = [str(resolve_device(device)) for device in devices]

    @contextmanager
    def __call__(self, run: Path, job: Job) -> Iterator[_Processes]:
        own = job.generator.class_embeddings.device.type
        others = [device for device in self._devices if device.split(":")[0] != own]
        if others:
            raise UsageError(
                f"device {others[0]} is of another type than the run's, {own}: its numbers would "
                "differ"
            )
        processes = _Processes(run, self._devices)
        try:
            yield processes
        finally:
            processes.end()


class _Processes:
    """``Workers``."""

    def __init__(self, run: Path, devices: Sequence[str]) -> None:
        self.together = len(devices)
        self.description = f"{len(devices)} processes ({', '.join(devices)})"
        self._run = run
        beside = devices.count("cpu")
        self._threads = max(1, torch.get_num_threads() // beside) if beside else None
        self._idle = [_Process(device) for device in devices]
        self._busy: dict[Shard, _Process] = {}
        self._waiting: deque[Shard] = deque()

    def start(self, shard: Shard) -> None:
        self._waiting.append(shard)

    def events(self) -> Iterator[tuple[Shard, Event]]:
        while self._waiting and self._idle:
            shard, process = self._waiting.popleft(), self._idle.pop()
            self._busy[shard] = process
            process.give(Order(self._run, shard, process.device, self._threads))
        shards = {process.connection: shard for shard, process in self._busy.items()}
        for connection in wait(list(shards), timeout=1):
            shard = shards[cast(Connection, connection)]
            event = self._busy[shard].hear()
            if isinstance(event, ShardDone | ShardLost):
                self._idle.append(self._busy.pop(shard))
            yield shard, event

    def end(self) -> None:
        for process in (*self._idle, *self._busy.values()):
            process.end()


class _Process:
    """One device's process; a new one takes its place where it is lost."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._process: SpawnProcess | None = None
        self.connection: Connection

    def give(self, order: Order) -> None:
        if self._process is None:
            self._begin()
        try:
            self.connection.send(order)
        except OSError:  # it ended after its last shard
            self.end()
            self._begin()
            self.connection.send(order)

    def hear(self) -> Event:
        try:
            event: Event = self.connection.recv()
        except (EOFError, OSError):
            assert self._process is not None
            self._process.join(_PATIENCE)
            event = ShardLost(f"its process {_how_it_ended(self._process.exitcode)}")
        if isinstance(event, ShardLost):
            self.end()  # whatever went wrong, a fresh process does not have it in it
        return event

    def end(self) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        self.connection.close()
        process.terminate()
        process.join(_PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()

    def _begin(self) -> None:
        spawning = multiprocessing.get_context("spawn")
        self.connection, theirs = spawning.Pipe()
        self._process = spawning.Process(target=_serve, args=(theirs,), daemon=True)
        resource_tracker.ensure_running()  # with the first process, it would lift the block below
        # Ctrl-C reaches every process of a terminal; what becomes of these is ours to say.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()


def _how_it_ended(status: int | None) -> str:
    if status is not None and status < 0:
        return f"was killed by signal {-status} ({signal.strsignal(-status)})"
    return f"ended with status {status}"


def _serve(connection: Connection) -> None:
    """In the process: do shard after shard, until one fails or the other end is closed."""
    keep_freed_memory()
    with suppress(EOFError, BrokenPipeError):  # whoever gave the orders has ended
        while True:
            order: Order = connection.recv()
            try:
                do_shard(order, connection.send)
            except (AmfastError, RuntimeError, MemoryError) as error:
                connection.send(ShardLost(f"{order.device}: {sentence(error)}"))
                return
