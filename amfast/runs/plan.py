"""What a run will take, measured on this device before it starts."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace

import torch

from amfast.api import engine_settings, objective_for
from amfast.optimize.engine import optimize_trials
from amfast.optimize.memory import plan_passes, saved_bytes_per_image
from amfast.optimize.objective import images_together
from amfast.optimize.trials import plan_trials
from amfast.runs.session import Job


@dataclass(frozen=True)
class RunPlan:
    """``seconds`` extrapolates a few timed steps, ``bytes_per_pass`` counts saved tensors."""

    trials: int
    batches: int
    steps_per_trial: int
    images_per_pass: int
    passes_per_step: int
    bytes_per_pass: int
    seconds: float

    def to_json(self) -> dict[str, float | int]:
        return asdict(self)


def plan_run(job: Job, *, timed_steps: int = 3) -> RunPlan:
    """Plan a run and time ``timed_steps`` steps of its first passes, after one to warm up.

    As many passes as a CPU runs side by side, and one on an accelerator.
    """
    config, objective = job.config, objective_for(job.classifier, job.config)
    settings = engine_settings(job.generator, job.classifier, config)
    trials = plan_trials(config.classes, config.trials, config.seed)
    batch = trials[: config.batch_embeddings]
    passes = plan_passes(
        len(batch), config.latents, settings.images_per_pass, images_together(objective)
    )
    side_by_side = torch.get_num_threads() if job.config.device == "cpu" else 1
    together = batch[: passes[:side_by_side][-1].trials.stop]
    mean = job.generator.class_embeddings.mean(dim=0)

    def seconds(steps: int) -> float:
        began = time.perf_counter()
        few = replace(settings, steps=steps)
        start = lambda trials: mean.expand(len(trials), -1)  # noqa: E731
        list(optimize_trials(job.generator, objective, together, start, few))
        return time.perf_counter() - began

    seconds(1)
    per_step = seconds(timed_steps) / timed_steps / len(together)
    images = min(settings.images_per_pass, len(batch) * config.latents)
    return RunPlan(
        trials=len(trials),
        batches=math.ceil(len(trials) / config.batch_embeddings),
        steps_per_trial=config.steps,
        images_per_pass=images,
        passes_per_step=len(passes),
        bytes_per_pass=images * saved_bytes_per_image(job.generator, objective),
        seconds=per_step * config.steps * len(trials),
    )
