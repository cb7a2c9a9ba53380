"""The loop against the method written out plainly, and each trial's independence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from amfast.classifiers.protocol import to_classifier_input
from amfast.optimize.engine import Progress, Settings, TrialResult, optimize_batch
from amfast.optimize.objective import TargetLogProb
from amfast.optimize.state import BatchState
from amfast.optimize.trials import Trial, draw_latents, plan_trials
from tests.optimize.conftest import LinearClassifier, LinearGenerator

SETTINGS = Settings(learning_rate=0.1, steps=12, latents=6, steps_per_latents=5, images_per_pass=12)
TRIALS = plan_trials([0, 2], 3, seed=3)


def starts(trials: Sequence[Trial], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.stack([0.1 * torch.randn(5, generator=t.random("start")) for t in trials]).to(
        dtype
    )


def begin(trials: Sequence[Trial], settings: Settings) -> BatchState:
    return BatchState.begin(trials, starts(trials), settings.steps)


def run(
    generator: LinearGenerator,
    classifier: LinearClassifier,
    trials: Sequence[Trial] = TRIALS,
    settings: Settings = SETTINGS,
) -> list[TrialResult]:
    objective = TargetLogProb(classifier)
    return list(optimize_batch(generator, objective, begin(trials, settings), settings))


def test_equals_the_method_written_out(classifier: LinearClassifier) -> None:
    """One trial at a time, torch.optim.Adam, float64 images: the paper's section 2 as it stands."""
    generator = LinearGenerator(torch.float64)
    objective = TargetLogProb(classifier)
    state = BatchState.begin(TRIALS, starts(TRIALS, torch.float64), SETTINGS.steps)
    found = optimize_batch(generator, objective, state, SETTINGS)
    for trial, result in zip(TRIALS, found, strict=True):
        c = starts([trial], torch.float64)[0].requires_grad_()
        adam = torch.optim.Adam([c], lr=0.1)
        for step in range(12):
            if step % 5 == 0:
                z = draw_latents([trial], step // 5, 6, 3, torch.device("cpu"))
            images = generator(c[None], generator.prepare_latents(z))
            logits = classifier(to_classifier_input(images, classifier.spec))
            log_prob = F.log_softmax(logits.float(), dim=1)[:, trial.class_id]
            assert result.history[step, 0] == pytest.approx(log_prob.mean().item(), rel=1e-4)
            assert result.history[step, 1] == pytest.approx(log_prob.exp().mean().item(), rel=1e-4)
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
    settings = Settings(0.1, 12, 6, 5, images_per_pass)
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
        run(generator, classifier, settings=Settings(0.1, 2, 6, 5, bound))
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
    """Gives NaN images for one row of the batch from one call on."""

    def __init__(self, row: int, call: int) -> None:
        super().__init__()
        self.row, self.call, self.calls = row, call, 0

    def __call__(self, embeddings: Tensor, latents: Tensor) -> Tensor:
        images = super().__call__(embeddings, latents).unflatten(0, latents.shape[:2]).clone()
        self.calls += 1
        if self.calls > self.call:
            images[self.row] = torch.nan
        return images.flatten(0, 1)


def test_a_failing_trial_freezes_and_the_others_go_on(
    generator: LinearGenerator, classifier: LinearClassifier
) -> None:
    whole = Settings(0.1, 12, 6, 5, images_per_pass=100)
    healthy = run(generator, classifier, settings=whole)
    results = run(Poisoned(row=2, call=7), classifier, settings=whole)
    stopped = run(generator, classifier, settings=Settings(0.1, 7, 6, 5, 100))[2]
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
    objective = TargetLogProb(classifier)
    list(optimize_batch(generator, objective, begin(TRIALS, SETTINGS), SETTINGS, seen.append))
    assert [p.step for p in seen] == list(range(1, 13))
    assert all(p.trials == 6 and p.steps == 12 and 0 < p.target_prob < 1 for p in seen)


def test_a_stopped_batch_goes_on_as_if_it_had_not_stopped(
    generator: LinearGenerator, classifier: LinearClassifier
) -> None:
    """From any resample, also with some of its trials only, and with a trial that had failed."""
    objective, kept = TargetLogProb(classifier), []

    def poisoned_run(state: BatchState, keep: bool) -> list[TrialResult]:
        spoilt = state.embeddings.clone()
        if state.step == 0:
            spoilt[1] = torch.nan
        state = replace(state, embeddings=spoilt)
        on_resample = kept.append if keep else lambda state: None
        return list(optimize_batch(generator, objective, state, SETTINGS, on_resample=on_resample))

    whole = poisoned_run(begin(TRIALS, SETTINGS), keep=True)
    assert [state.step for state in kept] == [5, 10]
    assert [r.failed for r in whole] == [False, True, False, False, False, False]
    for state in kept:
        for wanted in (TRIALS, TRIALS[1:4]):
            rest = poisoned_run(state.only(wanted), keep=False)
            assert [r.trial for r in rest] == list(wanted)
            for result in rest:
                before = whole[TRIALS.index(result.trial)]
                assert torch.equal(result.embedding, before.embedding) or result.failed
                assert torch.equal(result.start, before.start)
                assert torch.equal(result.history.nan_to_num(9), before.history.nan_to_num(9))
                assert result.failed_at == before.failed_at
