"""A run's shards over processes that may be lost: retried, counted, and named where they fail."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from amfast.api import Scores
from amfast.cluster.shards import Event, Shard, ShardDone, ShardLost, TrialWritten, plan_shards
from amfast.errors import RunError, UsageError
from amfast.optimize.engine import Progress
from amfast.optimize.trials import Trial
from amfast.runs.session import Job, Listener, Work

_ATTEMPTS = 3  # at a shard
_VISIBLE = 60  # seconds after which a file system has to show what another node wrote


class Workers(Protocol):
    """Processes that do shards (``amfast.cluster.work.do_shard``)."""

    #: Shards that are done at a time, as far as is known.
    together: int
    #: What a user is told of them, such as ``2 processes (cuda:0, cuda:1)``.
    description: str

    def start(self, shard: Shard) -> None:
        """Have a shard done as soon as a process is free."""

    def events(self) -> Iterable[tuple[Shard, Event]]:
        """What has been heard since the last call; waits for something, a second at most.

        The last of every shard is ``ShardDone`` or ``ShardLost``.
        """


class WorkerSource(Protocol):
    """Makes the workers of a run, and sees to it that none outlives it."""

    def __call__(self, run: Path, job: Job) -> AbstractContextManager[Workers]: ...


@dataclass(frozen=True)
class Spread:
    """An ``Executor`` (``amfast.runs.session``) that gives a run's trials to several processes.

    ``shard_trials`` of them at a time, which a process optimises together; None lets every process
    have some, and none more than ``batch_embeddings``. A shard whose process is lost is given out
    anew, three times in all, and goes on from its last resample. Raises ``UsageError`` for a size
    below one, and ``RunError``, naming them, where shards are left over; all that is finished is
    kept.
    """

    workers: WorkerSource
    shard_trials: int | None = None

    def __post_init__(self) -> None:
        if self.shard_trials is not None and self.shard_trials < 1:
            raise UsageError(f"{self.shard_trials} trials in a task: give one or more")

    def __call__(self, job: Job, work: Work, listener: Listener) -> Scores:
        with self.workers(work.directory.path.absolute(), job) as workers:
            each = math.ceil(len(work.trials) / workers.together)
            size = self.shard_trials or min(job.config.batch_embeddings, each)
            shards = plan_shards(work.trials, size)
            if work.stopped is not None:
                work.directory.share_out(work.stopped, {s.name: s.trials for s in shards})
            hearing = _Hearing(work, listener)
            work.note(f"{len(shards)} shards for {workers.description}")
            scores, failed = _do(workers, shards, hearing, work.note)
        if failed:
            reasons = "; ".join(f"{shard.name}: {reason}" for shard, reason in failed.items())
            raise RunError(
                f"{len(failed)} of {len(shards)} shards failed {_ATTEMPTS} times, and all else is "
                f"kept in {work.directory.path} (--resume tries them again): {reasons}"
            )
        return scores


def _do(
    workers: Workers, shards: Sequence[Shard], hearing: _Hearing, note: Callable[[str], None]
) -> tuple[Scores, dict[Shard, str]]:
    """Until every shard is done or has failed: the scores, and why those failed that have."""
    attempts, failed, scores = Counter(shards), dict[Shard, str](), Scores({}, {})
    for shard in shards:
        workers.start(shard)
    under_way = set(shards)
    while under_way:
        for shard, event in workers.events():
            hearing.hear(shard, event)
            if isinstance(event, ShardLost) and attempts[shard] < _ATTEMPTS:
                note(f"shard {shard.name} is tried again: {event.reason}")
                attempts[shard] += 1
                workers.start(shard)
            elif isinstance(event, ShardLost):
                failed[shard] = event.reason
                under_way.remove(shard)
            elif isinstance(event, ShardDone):
                scores.original.update(event.scores.original)
                scores.trials.update(event.scores.trials)
                under_way.remove(shard)
    return scores, failed


class _Hearing:
    """Makes one run's story of what many shards tell."""

    def __init__(self, work: Work, listener: Listener) -> None:
        self._work, self._listener = work, listener
        self._progress: dict[Shard, Progress] = {}

    def hear(self, shard: Shard, event: Event) -> None:
        if isinstance(event, Progress):
            self._progress[shard] = event
            self._listener.on_progress(_together(self._progress.values()))
            return
        self._progress.pop(shard, None)
        if isinstance(event, str):
            self._work.note(f"shard {shard.name}: {event}")
        elif isinstance(event, TrialWritten):
            self._look_for([event.trial])
        elif isinstance(event, ShardDone):
            self._find(shard)

    def _find(self, shard: Shard) -> None:
        """Its trials, those too that nobody lived to tell of."""
        end = time.monotonic() + _VISIBLE
        while missing := self._look_for(shard.trials):
            if time.monotonic() > end:
                raise RunError(
                    f"shard {shard.name} was done, and {len(missing)} of its trials are not in "
                    f"{self._work.directory.path}, or damaged: --outdir has to be in a folder that "
                    "every node shares with this one"
                )
            time.sleep(0.5)

    def _look_for(self, trials: Iterable[Trial]) -> list[Trial]:
        """Take over those of ``trials`` that are on disk; returns the others."""
        results = self._work.results
        found, _ = self._work.directory.finished(t for t in trials if t not in results)
        for trial, result in found.items():
            results[trial] = result
            self._listener.on_trial(result)
        return [trial for trial in trials if trial not in results]


def _together(parts: Iterable[Progress]) -> Progress:
    parts = list(parts)
    trials = sum(part.trials for part in parts)
    return Progress(
        trials,
        min(part.first for part in parts),
        max(part.last for part in parts),
        parts[0].steps,
        sum(part.done for part in parts),
        sum(part.target_prob * part.trials for part in parts) / trials,
    )
