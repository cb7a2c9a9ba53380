"""AM-D: the explicit term by hand, and its loop written out plainly."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import amfast
from amfast.api import check_method, engine_settings, objective_for
from amfast.classifiers.protocol import ModuleClassifier, to_classifier_input, wrap_module
from amfast.config import RunConfig, make_config
from amfast.errors import UsageError
from amfast.optimize.diversity import Phi, latent_gaps, pair_distances
from amfast.optimize.engine import TrialResult, optimize_trials
from amfast.optimize.memory import plan_passes
from amfast.optimize.trials import Trial, draw_latents, plan_trials
from tests.optimize.conftest import LinearClassifier, LinearGenerator

CPU = torch.device("cpu")
TRIALS = plan_trials([0, 2], 2, seed=4)


@pytest.fixture
def judge() -> ModuleClassifier:
    """On 4-pixel images, with feature maps [N, 6, 2, 2]."""
    torch.manual_seed(3)
    module = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3))
    return wrap_module(
        module,
        device=CPU,
        dtype=torch.float64,
        size=4,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        labels=("a", "b", "c"),
        feature_layers=("1",),
    )


def config(phi: Phi, **values: object) -> RunConfig:
    return make_config(
        **{
            "classes": (0, 2),
            "method": "am-d-l",
            "diversity": phi,
            "diversity_weight": 3.0,
            "steps": 7,
            "latents": 6,
            "steps_per_latents": 3,
            "seed": 4,
            **values,
        }
    )


def starts(trials: list[Trial]) -> Tensor:
    rows = [0.1 * torch.randn(5, generator=trial.random("start")) for trial in trials]
    return torch.stack(rows).double() if rows else torch.empty(0, 5).double()


def run(judge: ModuleClassifier, found: RunConfig) -> list[TrialResult]:
    generator = LinearGenerator(torch.float64)
    done = optimize_trials(
        generator,
        objective_for(judge, found),
        TRIALS,
        starts,  # type: ignore[arg-type]
        engine_settings(generator, judge, found),
    )
    return sorted(done, key=lambda result: result.trial)


def phi_of(phi: Phi, judge: ModuleClassifier, images: Tensor) -> Tensor:
    inputs = to_classifier_input(images, judge.spec)
    if phi == "pixel":
        return images.flatten(1)
    if phi == "conv5":
        return judge.module[:2](inputs).flatten(1)  # type: ignore[index]
    return judge(inputs).softmax(dim=1)


@pytest.mark.parametrize("phi", get_args(Phi))
def test_equals_the_loop_written_out(phi: Phi, judge: ModuleClassifier) -> None:
    """Mean log-probability plus lambda times the mean over pairs of the paper's quotient."""
    generator = LinearGenerator(torch.float64)
    for trial, result in zip(TRIALS, run(judge, config(phi)), strict=True):
        c = starts([trial])[0].requires_grad_()
        adam = torch.optim.Adam([c], lr=0.1)
        for step in range(7):
            if step % 3 == 0:
                z = draw_latents([trial], [step // 3], 6, 3, CPU)
            images = generator(c[None], generator.prepare_latents(z))
            logits = judge(to_classifier_input(images, judge.spec))
            log_prob = F.log_softmax(logits, dim=1)[:, trial.class_id]
            assert result.history[step, 0] == pytest.approx(log_prob.mean().item(), rel=1e-4)
            seen = phi_of(phi, judge, images)
            apart = [
                (seen[i] - seen[i + 1]).norm() / (z[0, i] - z[0, i + 1]).norm() for i in (0, 2, 4)
            ]
            adam.zero_grad()
            (-log_prob.mean() - 3.0 * torch.stack(apart).mean()).backward()
            adam.step()
            with torch.no_grad():
                c.clamp_(-0.6, 0.6)
        torch.testing.assert_close(result.embedding, c.detach(), rtol=0, atol=1e-5)
        plain = run(judge, config(phi, method="am-l"))
        moved = plain[TRIALS.index(trial)].embedding - result.embedding
        assert moved.abs().max() > 1e-3


@pytest.mark.parametrize("microbatch", [1, 2, 3, 5, 12, 13])
def test_pairs_are_never_parted(judge: ModuleClassifier, microbatch: int) -> None:
    whole = run(judge, config("softmax"))
    parted = run(judge, config("softmax", microbatch=microbatch))
    for a, b in zip(whole, parted, strict=True):
        torch.testing.assert_close(a.embedding, b.embedding, rtol=0, atol=1e-6)
    for part in plan_passes(3, 6, microbatch, together=2):
        assert part.latents.start % 2 == 0 and part.latents.stop % 2 == 0


def test_no_weight_is_no_term(judge: ModuleClassifier) -> None:
    none = run(judge, config("pixel", diversity_weight=0.0))
    for a, b in zip(none, run(judge, config("pixel", method="am-l")), strict=True):
        torch.testing.assert_close(a.embedding, b.embedding, rtol=0, atol=1e-6)


def test_gaps_and_distances_by_hand() -> None:
    latents = torch.tensor([[[0.0, 0.0], [3.0, 4.0], [1.0, 1.0], [1.0, 2.0]]])
    torch.testing.assert_close(latent_gaps(latents), torch.tensor([[5.0, 1.0]]))
    logits = torch.tensor([[0.0, 0.0], [100.0, 0.0]])
    torch.testing.assert_close(pair_distances("softmax", logits), torch.tensor([0.5**0.5]))
    maps = torch.zeros(2, 2, 1, 2, dtype=torch.bfloat16)
    maps[1] = 1
    torch.testing.assert_close(pair_distances("conv5", maps), torch.tensor([2.0]))
    equal = torch.ones(2, 3, 2, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(pair_distances("pixel", equal).sum(), equal)
    assert torch.equal(gradient, torch.zeros_like(equal))


def test_what_is_refused(judge: ModuleClassifier) -> None:
    with pytest.raises(UsageError, match="am-d-l compares latents in pairs: 5 of them cannot"):
        config("softmax", latents=5)
    assert config("softmax", method="am-l", latents=5)
    for wrong in ({"diversity": "vgg"}, {"diversity_weight": -1.0}):
        with pytest.raises(UsageError, match="diversity"):
            config("softmax", **wrong)
    bare = wrap_module(nn.Flatten(), device=CPU, dtype=torch.float32, size=4)
    for classifier in (bare, LinearClassifier()):
        check_method(LinearGenerator(), classifier, config("softmax"))
        with pytest.raises(UsageError, match="diversity conv5 compares .* names none: use"):
            check_method(LinearGenerator(), classifier, config("conv5"))


def test_the_embedded_pair_becomes_more_diverse_by_its_term() -> None:
    """A few steps on the real pair: the term that is climbed is greater than without it."""
    generator = amfast.load_generator("embedded", device="cpu")
    classifier = amfast.load_classifier("embedded", device="cpu")
    latents = torch.randn(1, 40, 20, generator=torch.Generator().manual_seed(9))

    def term(method: str) -> float:
        result = amfast.optimize(
            *(generator, classifier),
            classes="star",
            method=method,  # type: ignore[arg-type]
            diversity="pixel",
            diversity_weight=1.0,
            trials=1,
            steps=12,
            latents=10,
        )
        images = generator(result.embeddings, latents)
        return float((pair_distances("pixel", images) / latent_gaps(latents).flatten()).mean())

    assert term("am-d-s") > term("am-s")
