"""A worker process whose device fails once: in a process that no test can reach otherwise."""

from __future__ import annotations

from pathlib import Path

import torch

from amfast.cluster import local, work


def serve(connection):
    """``local._serve``, but the first process to begin a step loses its device."""
    usual = work.run_trials

    def run_trials(generator, classifier, config, trials, *rest, **options):
        mark = Path("device-failed")
        if not mark.exists():
            mark.touch()
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        return usual(generator, classifier, config, trials, *rest, **options)

    work.run_trials = run_trials
    local._serve(connection)
