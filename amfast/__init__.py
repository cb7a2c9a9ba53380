"""amfast: repair and re-purpose classes of a frozen BigGAN by optimising their embeddings.

Implements Li, Mai, Alcorn and Nguyen, "A cost-effective method for improving and re-purposing
large, pre-trained GANs by fine-tuning their class-embeddings" (ACCV 2020).
"""

from __future__ import annotations

from amfast.api import Result, optimize
from amfast.classifiers import Classifier, ClassifierSpec, load_classifier, wrap_module
from amfast.errors import AmfastError, RunError, UsageError, WeightsError
from amfast.evaluation import diagnose, evaluate, rank_run
from amfast.exchange import export_run, import_embeddings
from amfast.generators import Generator, GeneratorSpec, load_generator
from amfast.metrics.lpips import load_lpips
from amfast.optimize.engine import Progress, TrialResult
from amfast.optimize.trials import Trial
from amfast.plots import plot_run
from amfast.report import write_report
from amfast.sampler import Sampler
from amfast.study import make_study, score_study

__version__ = "0.1.0"

__all__ = [
    "AmfastError",
    "Classifier",
    "ClassifierSpec",
    "Generator",
    "GeneratorSpec",
    "Progress",
    "Result",
    "RunError",
    "Sampler",
    "Trial",
    "TrialResult",
    "UsageError",
    "WeightsError",
    "diagnose",
    "evaluate",
    "export_run",
    "import_embeddings",
    "load_classifier",
    "load_generator",
    "load_lpips",
    "make_study",
    "optimize",
    "plot_run",
    "rank_run",
    "score_study",
    "wrap_module",
    "write_report",
]
