"""What a process does with a shard, wherever it runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from amfast.api import run_trials, score_trials
from amfast.cluster.shards import Event, Shard, ShardDone, TrialWritten
from amfast.config import RunConfig
from amfast.errors import AmfastError, RunError
from amfast.ops import on_fallback
from amfast.optimize.engine import Progress
from amfast.runs.directory import RunDirectory
from amfast.runs.session import Job, load_job


@dataclass(frozen=True)
class Order:
    """A shard and where to do it: ``run`` is the directory, ``device`` the process's own name of
    its device, ``threads`` what it may use of a CPU (all of torch's for None). Of progress it tells
    no oftener than ``every`` so many seconds.
    """

    run: Path
    shard: Shard
    device: str
    threads: int | None = None
    every: float = 0.5


def do_shard(order: Order, tell: Callable[[Event], None]) -> None:
    """Optimise the shard's trials that are not on disk, write each, and ``tell`` of everything.

    Goes on from where another process kept the shard's trials under way. Raises ``RunError`` where
    the run directory is not here, cannot be written, or was begun on another device or with other
    versions or weights than this process has.
    """
    if order.threads is not None:
        torch.set_num_threads(order.threads)
    if not RunDirectory.is_run(order.run):
        raise RunError(
            f"there is no run directory {order.run} here: --outdir has to be in a folder that "
            "every node sees under the same path"
        )
    directory = RunDirectory.open(order.run)
    job, shard = _load(directory.config.model_copy(update={"device": order.device})), order.shard
    directory.refuse_other_facts(job.facts)
    classes = tuple(dict.fromkeys(trial.class_id for trial in shard.trials))
    config = job.config.model_copy(update={"classes": classes})
    results, damaged = directory.finished(shard.trials)
    for path in damaged:
        path.unlink(missing_ok=True)
    stopped, _ = directory.stopped(shard.name)
    with on_fallback(tell, strict=config.strict):
        for result in run_trials(
            job.generator,
            job.classifier,
            config,
            [trial for trial in shard.trials if trial not in results],
            _seldom(tell, order.every),
            stopped=stopped,
            on_resample=lambda state: directory.keep(state, shard.name),
            on_note=tell,
        ):
            directory.commit(result)
            results[result.trial] = result
            tell(TrialWritten(result.trial))
        ordered = [results[trial] for trial in shard.trials]
        tell(ShardDone(score_trials(job.generator, job.classifier, config, ordered)))


def _seldom(tell: Callable[[Event], None], seconds: float) -> Callable[[Progress], None]:
    told = -math.inf

    def progress(now: Progress) -> None:
        nonlocal told
        if time.monotonic() - told >= seconds:
            told = time.monotonic()
            tell(now)

    return progress


@lru_cache(maxsize=1)
def _load(config: RunConfig) -> Job:
    """The networks of a run; a process usually does several of its shards."""
    return load_job(config)


def sentence(error: BaseException) -> str:
    """What went wrong in a line, for whoever gave the order."""
    said = (str(error).splitlines() or [""])[0]
    return said if isinstance(error, AmfastError) else f"{type(error).__name__}: {said}"
