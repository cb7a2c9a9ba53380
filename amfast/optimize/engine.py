"""The only loop of the project: Adam on class embeddings through a frozen generator.

It knows a generator, an objective and a callback, and nothing about files or terminals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from amfast.generators.protocol import Generator
from amfast.optimize.adam import RowAdam
from amfast.optimize.memory import Pass, plan_passes
from amfast.optimize.parallel import Map, side_by_side
from amfast.optimize.state import BatchState
from amfast.optimize.trials import Trial, draw_latents

Objective = Callable[[Tensor, Tensor], Tensor]

#: Keeps small 16-bit gradients away from zero. A power of two, so dividing it out is exact.
_GRADIENT_SCALE = 1024.0


@dataclass(frozen=True)
class Settings:
    """The numbers of one optimisation (paper, section 2)."""

    learning_rate: float
    steps: int = 200
    latents: int = 20
    steps_per_latents: int = 20
    images_per_pass: int = 20


@dataclass(frozen=True)
class TrialResult:
    """One finished trial.

    ``history`` ``[steps, 2]`` holds the mean target log-probability and the mean target probability
    over the step's latents, before the step's update; NaN from the step at which the trial failed.
    """

    trial: Trial
    start: Tensor  # [E]
    embedding: Tensor  # [E]
    history: Tensor  # [steps, 2]
    failed_at: int | None

    @property
    def failed(self) -> bool:
        return self.failed_at is not None


@dataclass(frozen=True)
class Progress:
    """Where a batch stands: ``step`` of ``steps`` done, and its mean target probability."""

    trials: int
    step: int
    steps: int
    target_prob: float


def optimize_batch(
    generator: Generator,
    objective: Objective,
    state: BatchState,
    settings: Settings,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_resample: Callable[[BatchState], None] = lambda state: None,
) -> Iterator[TrialResult]:
    """Run a batch of trials from ``state`` to the end and yield their results in order.

    A row whose objective or gradient stops being finite keeps its last finite embedding; the other
    rows go on. ``on_progress`` is called at intervals, never between a step's kernels;
    ``on_resample`` with the state before every resample but the first, to be kept somewhere safe.
    """
    trials, start, embeddings = state.trials, state.start, state.embeddings
    device, (low, high) = start.device, generator.spec.clip_range
    adam = RowAdam(state.adam_mean, state.adam_square, state.adam_steps, settings.learning_rate)
    active, history = state.active.clone(), state.history.clone()
    targets = torch.tensor([t.class_id for t in trials], device=device)
    passes = plan_passes(len(trials), settings.latents, settings.images_per_pass)
    report_every = 1 if device.type == "cpu" else 10  # reading the history waits for the device

    with side_by_side(device, len(passes)) as run_passes:
        for step in range(state.step, settings.steps):
            if step % settings.steps_per_latents == 0:
                if step > state.step:
                    adam_state = (adam.mean, adam.square, adam.steps)
                    now = (step, start, embeddings, *adam_state, active.clone(), history.clone())
                    on_resample(BatchState(trials, *now))
                resample = step // settings.steps_per_latents
                latents = draw_latents(
                    trials, resample, settings.latents, generator.spec.latent_dim, device
                )
                prepared = [generator.prepare_latents(latents[p.trials, p.latents]) for p in passes]
            log_prob, gradient = _ascend(
                generator, objective, embeddings, targets, passes, prepared, settings, run_passes
            )
            active &= log_prob.isfinite().all(dim=1) & gradient.isfinite().all(dim=1)
            moved = adam.step(embeddings, -gradient, active).clamp(low, high)
            active &= moved.isfinite().all(dim=1)
            embeddings = torch.where(active[:, None], moved, embeddings)
            means = torch.stack([log_prob.mean(dim=1), log_prob.exp().mean(dim=1)], dim=1)  # [T, 2]
            history[:, step] = torch.where(active[:, None], means, torch.nan)
            if (step + 1) % report_every == 0 or step + 1 == settings.steps:
                prob = float(history[:, step, 1].nanmean())
                on_progress(Progress(len(trials), step + 1, settings.steps, prob))

    start, embeddings, history = start.cpu(), embeddings.cpu(), history.cpu()
    for i, trial in enumerate(trials):
        bad = history[i].isnan().any(dim=1).nonzero()
        failed_at = int(bad[0]) if len(bad) else None
        yield TrialResult(
            trial, start[i].clone(), embeddings[i].clone(), history[i].clone(), failed_at
        )


def _ascend(
    generator: Generator,
    objective: Objective,
    embeddings: Tensor,
    targets: Tensor,
    passes: Sequence[Pass],
    prepared: Sequence[object],
    settings: Settings,
    run_passes: Map[tuple[Tensor, Tensor]],
) -> tuple[Tensor, Tensor]:
    """Log-probabilities ``[T, Z]`` and the gradient ``[T, E]`` of their mean over the latents."""

    def run_pass(item: tuple[Pass, object]) -> tuple[Tensor, Tensor]:
        part, ready = item
        leaf = embeddings[part.trials].requires_grad_()
        images = generator(leaf, ready)
        rows = objective(images, targets[part.trials].repeat_interleave(len(images) // len(leaf)))
        scaled = rows.sum() * (_GRADIENT_SCALE / settings.latents)
        (d_embeddings,) = torch.autograd.grad(scaled, leaf)
        return rows.detach().unflatten(0, (len(leaf), -1)), d_embeddings / _GRADIENT_SCALE

    log_prob = embeddings.new_empty(len(embeddings), settings.latents)
    gradient = torch.zeros_like(embeddings)
    done = run_passes(run_pass, list(zip(passes, prepared, strict=True)))
    for part, (rows, d_embeddings) in zip(passes, done, strict=True):
        log_prob[part.trials, part.latents] = rows
        gradient[part.trials] += d_embeddings
    return log_prob, gradient
