"""The only loop of the project: Adam on class embeddings through a frozen generator.

It knows a generator, an objective, a stopping rule and callbacks, and nothing about files or
terminals.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from amfast.generators.protocol import Generator
from amfast.optimize.cuda_graph import GraphedStep, GraphMode
from amfast.optimize.determinism import deterministic_torch
from amfast.optimize.noise_layer import initial_noise_layers
from amfast.optimize.objective import Objective
from amfast.optimize.slots import MEASURES, Slots
from amfast.optimize.step import Step, StepSettings
from amfast.optimize.stopping import StopRule, never
from amfast.optimize.trials import Trial


@dataclass(frozen=True)
class Settings(StepSettings):
    """The numbers of an optimisation; the defaults are the paper's (section 2).

    ``keep_shape``: when no trial waits for a free slot, fill it with a copy of another until half
    of them are free. New shapes are dear where networks are compiled and steps recorded for them.
    """

    learning_rate: float
    latents: int = 20
    steps_per_latents: int = 20
    images_per_pass: int = 20
    steps: int = 200
    slots: int = 64
    stop: StopRule = never
    loss_scale: float = 1.0
    graph: GraphMode = "auto"
    keep_shape: bool = False


@dataclass(frozen=True)
class TrialResult:
    """One finished trial.

    ``history`` ``[steps, 3]`` holds the mean target log-probability and the mean target probability
    over the step's latents and the root mean square distance of its images from each other, pooled
    to 8x8 (``pooled_spread``), all before the step's update; NaN from ``failed_at``, the step at
    which the trial failed, or ``stopped_at``, the number of steps after which the stopping rule
    ended it.
    """

    trial: Trial
    start: Tensor  # [E]
    embedding: Tensor  # [E]
    history: Tensor  # [steps, 3]
    failed_at: int | None = None
    stopped_at: int | None = None

    @property
    def failed(self) -> bool:
        return self.failed_at is not None


@dataclass(frozen=True)
class Progress:
    """Where the trials under way stand.

    ``trials`` of them have done ``first`` to ``last`` of their ``steps``, ``done`` together; their
    mean target probability was ``target_prob``.
    """

    trials: int
    first: int
    last: int
    steps: int
    done: int
    target_prob: float

    @staticmethod
    def of(slots: Slots) -> Progress:
        """Of the trials in ``slots``, each of which has done a step at least."""
        steps, last = slots.step.tolist(), slots.step[:, None, None].expand(-1, 1, MEASURES) - 1
        prob = float(slots.history.gather(1, last)[:, 0, 1].nanmean())
        return Progress(
            len(steps), min(steps), max(steps), slots.history.shape[1], sum(steps), prob
        )


def optimize_trials(
    generator: Generator,
    objective: Objective,
    trials: Sequence[Trial],
    start_of: Callable[[Sequence[Trial]], Tensor],
    settings: Settings,
    *,
    stopped: Slots | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_resample: Callable[[Slots], None] = lambda slots: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> Iterator[TrialResult]:
    """Run ``trials``, ``settings.slots`` at a time, and yield each result when it is there.

    ``start_of`` gives the embeddings ``[T, E]`` that trials start from. A trial ends after its last
    step, when the stopping rule says so, or at the next resample once its objective or gradient has
    stopped being finite; the next one takes its slot at once. ``on_resample`` gets the trials under
    way whenever latents are about to be drawn, to be kept somewhere safe: ``stopped`` takes such
    slots and goes on from there. ``on_progress`` is called at intervals, never between a step's
    kernels; ``on_note`` with sentences that a user should know of, such as a smaller pass.
    """

    def begin(fresh: Sequence[Trial], start: Tensor) -> Slots:
        latent_dim = generator.spec.latent_dim
        layers = initial_noise_layers(fresh, latent_dim) if settings.noise_layer else None
        return Slots.begin(fresh, start, settings.steps, settings.loss_scale, layers)

    none = begin([], generator.class_embeddings[:0])
    slots = stopped.only(trials).to(none.start.device) if stopped else none
    waiting = deque(trial for trial in trials if trial not in slots.trials)
    device = slots.start.device
    on_device = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
    fixed = deterministic_torch(device) if settings.deterministic else nullcontext()
    with on_device, fixed as cores, Step(generator, objective, settings, on_note, cores) as plain:
        step = GraphedStep(plain, settings.graph, device) if device.type == "cuda" else plain
        width = 0  # of a step, in trials
        while slots.trials or waiting:
            free = max(0, settings.slots - len(slots.trials))
            if fresh := [waiting.popleft() for _ in range(min(free, len(waiting)))]:
                slots = slots.joined(begin(fresh, start_of(fresh)))
            if slots.step.any():
                on_resample(slots)
            rows = range(len(slots.trials))
            if not (settings.keep_shape and width // 2 < len(rows) <= width):
                width = len(rows)
            step.load(slots.rows([*rows, *[0] * (width - len(rows))]))
            together = min(_steps_to_go(done, settings) for done in slots.step.tolist())
            for count in range(1, together + 1):
                step()
                if count == together or device.type == "cpu":  # reading waits for the device
                    on_progress(Progress.of(plain.slots.rows(rows)))
            there = plain.slots.to(torch.device("cpu"))
            found = there.embeddings
            if settings.clamp_in_graph:
                found = found.clamp(*generator.spec.clip_range)
            results = {row: _result(there, found[row], row, settings) for row in rows}
            yield from (result for result in results.values() if result)
            slots = plain.slots.rows([row for row, result in results.items() if not result])


def _steps_to_go(done: int, settings: Settings) -> int:
    """Until a trial draws new latents or ends."""
    return min(
        settings.steps_per_latents - done % settings.steps_per_latents, settings.steps - done
    )


def _result(slots: Slots, embedding: Tensor, row: int, settings: Settings) -> TrialResult | None:
    """What became of a trial, None while it goes on; ``slots`` are on the CPU."""
    step, history = int(slots.step[row]), slots.history[row]
    failed_at = stopped_at = None
    if not slots.active[row]:
        failed_at = int(history.isnan().any(dim=1).nonzero()[0])
    elif step < settings.steps:
        period = settings.steps_per_latents
        if step % period or not settings.stop(history[:step], period):
            return None
        stopped_at = step
    return TrialResult(
        slots.trials[row],
        slots.start[row].clone(),
        embedding.clone(),
        history.clone(),
        failed_at,
        stopped_at,
    )
