"""What the stopping rules save on the embedded pair, and at what price.

``python -m bench.stopping`` prints the table of docs/performance.md. One run without a rule serves
all of them: a trial that a rule ends is, at that step, what it is in that run, since no trial
depends on when others end (tests/optimize/test_engine.py).
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from amfast.api import run_trials
from amfast.classifiers import load_classifier
from amfast.config import make_config
from amfast.device import keep_freed_memory
from amfast.generators import load_generator
from amfast.metrics.diversity import pooled_distance, random_pairs
from amfast.metrics.embedding import evaluation_latents, sample_images
from amfast.optimize.engine import TrialResult
from amfast.optimize.objective import TargetLogProb
from amfast.optimize.slots import Slots
from amfast.optimize.stopping import parse_stop
from amfast.optimize.trials import Trial, plan_trials
from bench.tables import markdown

RULES = ("none", "plateau", "prob=0.9", "prob=0.95", "prob=0.98")
IMAGES, PAIRS = 100, 200


@dataclass(frozen=True)
class Course:
    """A trial to its last step, and its embeddings ``[E]`` by the number of steps done."""

    result: TrialResult
    embeddings: dict[int, Tensor]

    def end(self, rule: str, period: int) -> int:
        """The number of steps after which ``rule`` ends it."""
        history = self.result.history
        stop = parse_stop(rule)
        ends = (s for s in range(period, len(history), period) if stop(history[:s], period))
        return next(ends, len(history))


def courses(trials: int, steps: int, period: int) -> list[Course]:
    generator, judge = load_generator("embedded", device="cpu"), load_classifier("embedded")
    classes = tuple(range(len(judge.spec.labels)))
    config = make_config(
        classes=classes, trials=trials, steps=steps, steps_per_latents=period, device="cpu"
    )
    seen: dict[Trial, dict[int, Tensor]] = defaultdict(dict)

    def note(slots: Slots) -> None:
        rows = zip(slots.trials, slots.step.tolist(), slots.embeddings.clone(), strict=True)
        for trial, step, embedding in rows:
            seen[trial][step] = embedding

    plan = plan_trials(classes, trials, config.seed)
    found = []
    for result in run_trials(generator, judge, config, plan, on_resample=note):
        found.append(Course(result, {**seen[result.trial], steps: result.embedding}))
        print(f"{len(found)} of {len(plan)} trials", file=sys.stderr)
    return found


def score(embedding: Tensor, class_id: int) -> tuple[float, float, float]:
    """Mean log-probability and probability on fresh latents, and mean pairwise distance."""
    generator, judge = load_generator("embedded", device="cpu"), load_classifier("embedded")
    latents = evaluation_latents(IMAGES, generator.spec.latent_dim, 0, torch.device("cpu"))
    images = sample_images(generator, embedding, latents)
    with torch.no_grad():
        log_prob = TargetLogProb(judge)(images, torch.full((IMAGES,), class_id))
    distance = pooled_distance(images, random_pairs(IMAGES, PAIRS, 0)).mean()
    return float(log_prob.mean()), float(log_prob.exp().mean()), float(distance)


def table(found: list[Course], period: int) -> list[list[str]]:
    """A row for every rule: steps taken, and means over the trials."""
    rows = [["`--stop`", "steps", "saved", "log-probability", "probability", "pairwise distance"]]
    for rule in RULES:
        ends = [course.end(rule, period) for course in found]
        scores = [
            score(course.embeddings[end], course.result.trial.class_id)
            for course, end in zip(found, ends, strict=True)
        ]
        steps = statistics.mean(ends)
        share = 1 - steps / len(found[0].result.history)
        means = [statistics.mean(values) for values in zip(*scores, strict=True)]
        rows.append(
            [f"`{rule}`", f"{steps:.0f}", f"{share:.0%}", *(f"{mean:.3f}" for mean in means)]
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=2, help="of each class")
    options = parser.parse_args()
    keep_freed_memory()
    print(markdown(table(courses(options.trials, steps=200, period=20), 20)))


if __name__ == "__main__":
    main()
