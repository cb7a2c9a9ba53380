"""One problem for the engine and its opponents: compared first, then timed."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from amfast.classifiers import Classifier, ClassifierSpec, load_classifier, wrap_module
from amfast.generators import BigGANGenerator
from amfast.generators.reference import BigGAN
from amfast.optimize.compiled import compiled_for
from amfast.optimize.engine import Settings, optimize_trials
from amfast.optimize.memory import images_per_pass, plan_passes, saved_bytes_per_image
from amfast.optimize.objective import TargetLogProb
from amfast.optimize.precision import initial_loss_scale
from amfast.optimize.trials import Trial, draw_latents
from bench.baseline import Step, frozen_compiled_loop, plain_loop
from bench.models import embedded_shapenet, random_alexnet

CPU = torch.device("cpu")
DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
#: How far two contestants' first steps may be apart, as a share of the step. Adam's first step is
#: the sign of every coordinate's gradient, so that rounding decides where one next to nothing goes:
#: 16 bits turned one in 60 of them, which is 0.25 of the step. Unrelated steps differ by 1.4.
PART_WAYS = {torch.float32: 0.02, torch.bfloat16: 0.5, torch.float16: 0.25}


@dataclass(frozen=True)
class Problem:
    """Trials of ``steps`` steps each. ``dtype`` is the engine's and the compiled loop's."""

    model: BigGAN
    classifier: str  # "embedded" or "alexnet"
    trials: int
    latents: int
    steps: int
    device: torch.device = CPU
    dtype: torch.dtype = torch.float32

    @cached_property
    def network(self) -> nn.Module:
        """The classifier as the opponents run it."""
        return random_alexnet() if self.classifier == "alexnet" else embedded_shapenet()

    @cached_property
    def judge(self) -> Classifier:
        """The same as the engine runs it."""
        if self.classifier == "alexnet":
            return wrap_module(self.network, device=self.device, dtype=self.dtype)
        name = DTYPES[self.dtype]
        return load_classifier("embedded", device=self.device, dtype=name)  # type: ignore[arg-type]

    @cached_property
    def generator(self) -> BigGANGenerator:
        return BigGANGenerator(
            self.model,
            name="bench",
            labels=[str(i) for i in range(self.model.config.num_classes)],
            device=self.device,
            dtype=self.dtype,
        )

    @cached_property
    def plan(self) -> list[Trial]:
        return [Trial(i % 10, i, 0) for i in range(self.trials)]

    @cached_property
    def start(self) -> Tensor:
        """``[T, E]``: the mean of the class embeddings plus noise, as AM-L starts."""
        mean = self.generator.class_embeddings.mean(0)
        noise = [torch.randn(len(mean), generator=t.random("start")) for t in self.plan]
        return mean + 0.1 * torch.stack(noise).to(mean)


def engine(problem: Problem, steps: int) -> Callable[[], list[Tensor]]:
    """``steps`` steps of all trials of a problem: a call returns their embeddings ``[E]``.

    All that the benchmarks know of the engine's interface is here and in ``kept_bytes``.
    """
    generator, judge, objective = problem.generator, problem.judge, TargetLogProb(problem.judge)
    images = images_per_pass(generator, objective, problem.latents)
    if problem.device.type == "cuda":
        passes = plan_passes(problem.trials, problem.latents, images)
        fast = compiled_for(judge, passes, problem.device, required=True, on_note=print)
        objective = TargetLogProb(fast)
    settings = Settings(
        learning_rate=0.1,
        latents=problem.latents,
        steps_per_latents=steps,
        images_per_pass=images,
        steps=steps,
        loss_scale=initial_loss_scale(generator, judge),
    )

    def run() -> list[Tensor]:
        done = optimize_trials(
            generator, objective, problem.plan, lambda _: problem.start, settings, on_note=print
        )
        return [result.embedding for result in done]

    return run


def kept_bytes(problem: Problem) -> int:
    """Bytes per image that the engine keeps for the backward, generator and classifier together."""
    return saved_bytes_per_image(problem.generator, TargetLogProb(problem.judge))


def opponent(problem: Problem, name: str) -> Step:
    """``"plain"`` or ``"compiled"``: a call is one step of the problem's first trial."""
    spec: ClassifierSpec = problem.judge.spec
    dim = problem.generator.spec.latent_dim
    latents = draw_latents(problem.plan[:1], [0], problem.latents, dim, problem.device)[0]
    start, target = problem.start[0], problem.plan[0].class_id
    if name == "plain":
        return plain_loop(
            problem.model, problem.network, spec, start=start, latents=latents, target=target
        )
    return frozen_compiled_loop(
        problem.model,
        problem.network,
        spec,
        start=start,
        latents=latents,
        target=target,
        dtype=problem.dtype,
    )


def contest(problem: Problem, *, compiled: bool) -> dict[str, Callable[[], object]]:
    """Engine, plain loop and, if asked for, frozen compiled loop on one problem, once compared.

    A call of the engine runs every trial's every step, a call of the others one step of one trial.
    """
    start = problem.start[0].cpu()
    moved = engine(problem, steps=1)()[0].cpu() - start
    names = ["plain", "compiled"] if compiled else ["plain"]
    opponents = {name: opponent(problem, name) for name in names}
    for step in opponents.values():
        check(moved, step, start, PART_WAYS[problem.dtype])
    return {"engine": engine(problem, problem.steps), **opponents}


def check(moved: Tensor, step: Step, start: Tensor, most: float) -> None:
    """Raise unless an opponent's first step moves an embedding as the engine's did, as a whole."""
    theirs = step().cpu() - start
    error = float((moved - theirs).norm() / moved.norm())
    if not error < most:
        raise AssertionError(
            f"the engine and its opponent part ways: their first steps differ by {error:.3f} of "
            f"the engine's, at most {most} is rounding"
        )


def in_turns(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each after one call to warm up, rounds interleaved."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for name, run in contestants.items():
        run()
        print(f"  warm: {name}", file=sys.stderr)
    for _ in range(rounds):
        for name, run in contestants.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(taken) for name, taken in seconds.items()}
