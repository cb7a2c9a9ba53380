"""The paper's experiments as commands: each a recipe over the public API."""

from __future__ import annotations

from amfast.experiments.experiment import EXPERIMENTS, Experiment, Reproduction, reproduce
from amfast.experiments.laboratory import Options, Reporter
from amfast.experiments.measured import Finding

__all__ = [
    "EXPERIMENTS",
    "Experiment",
    "Finding",
    "Options",
    "Reporter",
    "Reproduction",
    "reproduce",
]
