"""A run's trials on several processes: of this machine (``local``) or of a Ray cluster (``ray``).

The trials are cut into shards. Whoever gets a shard does those of its trials that are not on disk
yet, commits each to the run directory that all share, and scores them: doing a shard twice is
harmless, so a lost one is simply done again.
"""

from amfast.cluster.local import LocalExecutor
from amfast.cluster.shards import Shard, plan_shards
from amfast.cluster.spread import Spread

__all__ = ["LocalExecutor", "Shard", "Spread", "plan_shards"]
