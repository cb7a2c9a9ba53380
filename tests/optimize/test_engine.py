"""The loop against the method written out plainly, and each trial's independence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from amfast.classifiers.protocol import to_classifier_input
from amfast.metrics.diversity import pooled_distance
from amfast.optimize.engine import Progress, Settings, TrialResult, optimize_trials
from amfast.optimize.objective import TargetLogProb
from amfast.optimize.slots import Slots
from amfast.optimize.stopping import parse_stop
from amfast.optimize.trials import Trial, draw_latents, plan_trials
from tests.optimize.conftest import LinearClassifier, LinearGenerator

SETTINGS = Settings(learning_rate=0.1, steps=12, latents=6, steps_per_latents=5, images_per_pass=12)
TRIALS = plan_trials([0, 2], 3, seed=3)


def starts(trials: Sequence[Trial]) -> Tensor:
    """Where trials start; float64, so that what follows is compared without rounding."""
    rows = [0.1 * torch.randn(5, generator=trial.random("start")) for trial in trials]
    return torch.stack(rows).double() if rows else torch.empty(0, 5)


def run(
    generator: LinearGenerator,
    classifier: LinearClassifier,
    trials: Sequence[Trial] = TRIALS,
    settings: Settings = SETTINGS,
    **options: Any,
) -> list[TrialResult]:
    objective = TargetLogProb(classifier)
    found = optimize_trials(generator, objective, trials, starts, settings, **options)
    return sorted(found, key=lambda result: result.trial)


def test_equals_the_method_written_out(classifier: LinearClassifier) -> None:
    """One trial at a time, torch.optim.Adam, float64 images: the paper's section 2 as it stands."""
    generator = LinearGenerator(torch.float64)
    for trial, result in zip(TRIALS, run(generator, classifier), strict=True):
        c = starts([trial])[0].requires_grad_()
        adam = torch.optim.Adam([c], lr=0.1)
        for step in range(12):
            if step % 5 == 0:
                z = draw_latents([trial], [step // 5], 6, 3, torch.device("cpu"))
            images = generator(c[None], generator.prepare_latents(z))
            logits = classifier(to_classifier_input(images, classifier.spec))
            log_prob = F.log_softmax(logits.float(), dim=1)[:, trial.class_id]
            assert result.history[step, 0] == pytest.approx(log_prob.mean().item(), rel=1e-4)
            assert result.history[step, 1] == pytest.approx(log_prob.exp().mean().item(), rel=1e-4)
            # Every pair's distance, though the engine forms none.
            pairs = torch.combinations(torch.arange(6))
            apart = pooled_distance(images.detach(), pairs).square().mean().sqrt().item()
            assert result.history[step, 2] == pytest.approx(apart, rel=1e-4)
            adam.zero_grad()
            (-log_prob.mean()).backward()
            adam.step()
            with torch.no_grad():
                c.clamp_(-0.6, 0.6)
        torch.testing.assert_close(result.embedding, c.detach(), rtol=0, atol=1e-5)
        assert not result.failed


def test_it_climbs_and_stays_in_the_clip_range(
    generator: LinearGenerator, classifier: LinearClassifier
) -> None:
    for result in run(generator, classifier):
        assert result.history[-1, 0] > result.history[0, 0] + 0.1
        assert result.embedding.abs().max() <= 0.6
        assert result.start.abs().max() < 0.6


@pytest.mark.parametrize("images_per_pass", [1, 4, 6, 7, 13, 1000])
def test_passes_do_not_change_the_result(
    generator: LinearGenerator, classifier: LinearClassifier, images_per_pass: int
) -> None:
    settings = replace(SETTINGS, images_per_pass=images_per_pass)
    for a, b in zip(
        run(generator, classifier), run(generator, classifier, settings=settings), strict=True
    ):
        torch.testing.assert_close(a.embedding, b.embedding, rtol=0, atol=1e-5)
        torch.testing.assert_close(a.history, b.history, rtol=0, atol=1e-5)


def test_a_pass_never_holds_more_images_than_allowed(
    generator: LinearGenerator, classifier: LinearClassifier
) -> None:
    for bound, largest in ((13, 12), (7, 6), (4, 4)):
        generator.largest_pass = 0
        run(generator, classifier, settings=replace(SETTINGS, steps=2, images_per_pass=bound))
        assert generator.largest_pass == largest


def test_alone_equals_together(generator: LinearGenerator, classifier: LinearClassifier) -> None:
    together = run(generator, classifier)
    for trial, result in zip(TRIALS, together, strict=True):
        (alone,) = run(generator, classifier, [trial])
        assert alone.trial == result.trial == trial
        torch.testing.assert_close(alone.embedding, result.embedding, rtol=0, atol=1e-6)


def test_latents_are_prepared_once_per_resample(
    generator: LinearGenerator, classifier: LinearClassifier
) -> None:
    run(generator, classifier)  # 12 steps, new latents at 0, 5 and 10, three passes
    assert generator.prepared == 9


class Poisoned(LinearGenerator):
    """Gives NaN images for one of six rows from one call on."""

    def __init__(self, row: int, call: int) -> None:
        super().__init__()
        self.row, self.call, self.calls = row, call, 0

    def __call__(self, embeddings: Tensor, latents: Tensor) -> Tensor:
        images = super().__call__(embeddings, latents).unflatten(0, latents.shape[:2]).clone()
        self.calls += 1
        if self.calls > self.call and len(images) == 6:
            images[self.row] = torch.nan
        return images.flatten(0, 1)


def test_a_failing_trial_freezes_and_the_others_go_on(
    generator: LinearGenerator, classifier: LinearClassifier
) -> None:
    whole = replace(SETTINGS, images_per_pass=100)
    healthy = run(generator, classifier, settings=whole)
    results = run(Poisoned(row=2, call=7), classifier, settings=whole)
    stopped = run(generator, classifier, settings=replace(whole, steps=7))[2]
    for i, (result, expected) in enumerate(zip(results, healthy, strict=True)):
        if i == 2:
            assert result.failed_at == 7
            assert torch.equal(result.embedding, stopped.embedding)
            assert result.history[7:].isnan().all()
            assert result.history[:7].isfinite().all()
        else:
            assert not result.failed
            assert torch.equal(result.embedding, expected.embedding)


def test_progress_is_reported(generator: LinearGenerator, classifier: LinearClassifier) -> None:
    seen: list[Progress] = []
    run(generator, classifier, on_progress=seen.append)
    assert [(p.first, p.last, p.done) for p in seen] == [(n, n, 6 * n) for n in range(1, 13)]
    assert all(p.trials == 6 and p.steps == 12 and 0 < p.target_prob < 1 for p in seen)


def same(found: TrialResult, expected: TrialResult) -> bool:
    return (
        found.trial == expected.trial
        and torch.equal(found.start, expected.start)
        and torch.equal(found.embedding, expected.embedding)
        and torch.equal(found.history.nan_to_num(9), expected.history.nan_to_num(9))
        and (found.failed_at, found.stopped_at) == (expected.failed_at, expected.stopped_at)
    )


@pytest.mark.parametrize("stop", ["none", "prob=0.53"])
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(
    generator: LinearGenerator, classifier: LinearClassifier, stop: str
) -> None:
    """From any resample, with all of its trials or some, and with others still waiting."""
    kept: list[Slots] = []
    settings = replace(SETTINGS, slots=4, stop=parse_stop(stop), images_per_pass=6)
    whole = run(generator, classifier, settings=settings, on_resample=kept.append)
    ends = {result.stopped_at for result in whole}
    assert ends == ({None} if stop == "none" else {5, 10, None})
    assert len(kept) >= 4
    for slots in kept:
        for wanted in (TRIALS, TRIALS[1:4]):
            rest = run(generator, classifier, wanted, settings, stopped=slots)
            assert all(map(same, rest, [whole[TRIALS.index(trial)] for trial in wanted]))


@pytest.mark.parametrize("slots", [1, 2, 4, 5])
@pytest.mark.parametrize("stop", ["none", "prob=0.53"])
def test_results_do_not_depend_on_the_slots(
    generator: LinearGenerator, classifier: LinearClassifier, slots: int, stop: str
) -> None:
    """Trials that end early make room for others, at any step of their batch-mates'."""
    one_by_one = replace(SETTINGS, stop=parse_stop(stop), images_per_pass=6)
    alone = [run(generator, classifier, [trial], one_by_one)[0] for trial in TRIALS]
    together = run(generator, classifier, settings=replace(one_by_one, slots=slots))
    assert all(map(same, together, alone))


def test_a_free_slot_is_taken_at_once(
    generator: LinearGenerator, classifier: LinearClassifier
) -> None:
    seen: list[Progress] = []
    settings = replace(SETTINGS, slots=2, stop=parse_stop("prob=0.53"))
    results = run(generator, classifier, settings=settings, on_progress=seen.append)
    lengths = [result.stopped_at or 12 for result in results]
    assert set(lengths) == {5, 10, 12}
    free_at = [0, 0]  # by slot
    for length in lengths:  # each trial takes the slot that is free first
        free_at[free_at.index(min(free_at))] += length
    assert len(seen) == max(free_at)
    assert sum(progress.trials for progress in seen) == sum(lengths)


class Measured(LinearGenerator):
    """Notes how many trials and latents each pass has, and how often that changed."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, embeddings: Tensor, latents: Tensor) -> Tensor:
        if self.shapes[-1:] != [latents.shape[:2]]:
            self.shapes.append(latents.shape[:2])
        return super().__call__(embeddings, latents)


def test_a_kept_shape_changes_nothing_but_shapes(classifier: LinearClassifier) -> None:
    settings = replace(SETTINGS, stop=parse_stop("prob=0.53"), images_per_pass=100)
    kept: list[Slots] = []
    seen: list[Progress] = []
    usual, steady = Measured(), Measured()
    expected = run(usual, classifier, settings=settings)
    found = run(
        steady,
        classifier,
        settings=replace(settings, keep_shape=True),
        on_resample=kept.append,
        on_progress=seen.append,
    )
    for a, b in zip(found, expected, strict=True):
        assert (a.trial, a.stopped_at) == (b.trial, b.stopped_at)
        torch.testing.assert_close(a.embedding, b.embedding, rtol=0, atol=1e-6)
    assert [shape[0] for shape in usual.shapes] == [6, 5, 1]
    assert [shape[0] for shape in steady.shapes] == [6, 1]
    assert all(len(set(slots.trials)) == len(slots.trials) for slots in kept)
    assert {progress.trials for progress in seen} == {6, 5, 1}


class Hungry(LinearGenerator):
    """Has memory for so many images in a pass."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.images = images

    def __call__(self, embeddings: Tensor, latents: Tensor) -> Tensor:
        if latents.shape[0] * latents.shape[1] > self.images:
            raise torch.OutOfMemoryError("not enough memory")
        return super().__call__(embeddings, latents)


@pytest.mark.parametrize("images", [12, 6, 5, 1])
def test_out_of_memory_halves_the_pass_and_loses_nothing(
    generator: LinearGenerator, classifier: LinearClassifier, images: int
) -> None:
    notes: list[str] = []
    settings = replace(SETTINGS, images_per_pass=36)
    usual = run(generator, classifier, settings=settings)
    hungry = Hungry(images)
    found = run(hungry, classifier, settings=settings, on_note=notes.append)
    for a, b in zip(found, usual, strict=True):
        assert a.trial == b.trial
        torch.testing.assert_close(a.embedding, b.embedding, rtol=0, atol=1e-5)
        torch.testing.assert_close(a.history, b.history, rtol=0, atol=1e-5)
    assert hungry.largest_pass <= images
    bounds = {12: [18, 9], 6: [18, 9], 5: [18, 9, 3], 1: [18, 9, 3, 1]}[images]
    for note, bound in zip(notes, bounds, strict=True):
        assert note.endswith(f"--microbatch {bound} starts there")


def test_no_memory_for_one_image_is_an_error(classifier: LinearClassifier) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        run(Hungry(0), classifier)
