"""Shards: the parts of a run that are handed out, and what is heard of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amfast.api import Scores
from amfast.optimize.engine import Progress
from amfast.optimize.trials import Trial


@dataclass(frozen=True)
class Shard:
    """Trials of a run that one process optimises together."""

    trials: tuple[Trial, ...]

    @property
    def name(self) -> str:
        """Numbers only, of its first and last trial: ``0003-00-0005-04``."""
        ends = (self.trials[0], self.trials[-1])
        return "-".join(f"{trial.class_id:04d}-{trial.index:02d}" for trial in ends)


def plan_shards(trials: Sequence[Trial], size: int) -> list[Shard]:
    """Cut ``trials`` into shards of ``size``, the last one smaller.

    The same trials give the same shards, whoever does them and whatever is finished.
    """
    return [Shard(tuple(trials[i : i + size])) for i in range(0, len(trials), size)]


@dataclass(frozen=True)
class TrialWritten:
    """A trial of a shard is on disk."""

    trial: Trial


@dataclass(frozen=True)
class ShardDone:
    """Every trial of a shard is on disk, and these are their scores."""

    scores: Scores


@dataclass(frozen=True)
class ShardLost:
    """A shard's process ended, or could not go on."""

    reason: str


#: What is heard of a shard: notes are strings.
Event = Progress | TrialWritten | str | ShardDone | ShardLost
