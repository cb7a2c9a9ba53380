"""What embeddings are worth: beside the classes as trained and real images, class by class."""

from __future__ import annotations

from amfast.evaluation.evaluate import Evaluation, evaluate, gaps_closed
from amfast.evaluation.rank import RankedClass, rank_run

__all__ = ["Evaluation", "RankedClass", "evaluate", "gaps_closed", "rank_run"]
