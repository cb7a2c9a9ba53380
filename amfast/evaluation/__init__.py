"""What embeddings are worth: beside the classes as trained and real images, class by class."""

from __future__ import annotations

from amfast.evaluation.diagnose import Diagnosis, diagnose
from amfast.evaluation.evaluate import Evaluation, Target, evaluate, gaps_closed
from amfast.evaluation.networks import Networks, load_networks
from amfast.evaluation.rank import RankedClass, rank_run
from amfast.evaluation.session import evaluate_path

__all__ = [
    "Diagnosis",
    "Evaluation",
    "Networks",
    "RankedClass",
    "Target",
    "diagnose",
    "evaluate",
    "evaluate_path",
    "gaps_closed",
    "load_networks",
    "rank_run",
]
