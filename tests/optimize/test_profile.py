"""The released code's behaviour against a plain loop, and the noise layer beside it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amfast.api import engine_settings, objective_for
from amfast.classifiers.protocol import ClassifierSpec, ModuleClassifier
from amfast.config import RunConfig, make_config
from amfast.errors import UsageError
from amfast.generators.architectures import random_biggan, random_deep
from amfast.generators.biggan import BigGANGenerator
from amfast.generators.biggan_deep import BigGANDeepGenerator
from amfast.generators.frozen import PreparedLatents
from amfast.generators.reference import BigGAN
from amfast.generators.reference_deep import BigGANDeep
from amfast.optimize.engine import TrialResult, optimize_trials
from amfast.optimize.noise_layer import apply_noise_layers, initial_noise_layers
from amfast.optimize.trials import Trial, draw_shared_latents, plan_trials
from tests.generators.conftest import CONFIGS, DEEP_CONFIGS

CPU = torch.device("cpu")
TRIALS = plan_trials([0, 1], 2, seed=5)
MODELS = {
    "biggan": (random_biggan(CONFIGS["one-block"]), BigGANGenerator),
    "deep": (random_deep(DEEP_CONFIGS["one-stage"]), BigGANDeepGenerator),
}


def classifier() -> ModuleClassifier:
    """Of 32 pixels and its own mean and std, which the released code never asks for."""
    torch.manual_seed(1)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 9, stride=5), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten()
    )
    module.append(nn.Linear(72, 2))
    spec = ClassifierSpec("small", 32, (0.4,) * 3, (0.2,) * 3, ("a", "b"), fingerprint="1" * 16)
    return ModuleClassifier(module, spec, CPU, torch.float64)


def starts(trials: Sequence[Trial], width: int) -> Tensor:
    """Some numbers beyond the clip range, in float64 so that nothing is lost to rounding."""
    rows = [2 * torch.randn(width, generator=trial.random("start")) for trial in trials]
    return torch.stack(rows).double() if rows else torch.empty(0, width).double()


def run(family: str, config: RunConfig, trials: Sequence[Trial] = TRIALS) -> list[TrialResult]:
    model, build = MODELS[family]
    generator = build(model, name=family, labels=("a", "b"), device=CPU, dtype=torch.float64)  # type: ignore[operator]
    judge = classifier()
    found = optimize_trials(
        generator,
        objective_for(judge, config),
        trials,
        lambda some: starts(some, generator.spec.embedding_dim),
        engine_settings(generator, judge, config),
    )
    return sorted(found, key=lambda result: result.trial)


def released(
    model: BigGAN | BigGANDeep, judge: ModuleClassifier, trial: Trial, config: RunConfig
) -> tuple[Tensor, list[float]]:
    """What facts are known of the released loop, in torch's own words: embedding and history."""
    model = model.double()
    dim = model.config.latent_dim
    table = model.shared.weight if isinstance(model, BigGAN) else model.class_embeddings
    least, most = float(table.min()), float(table.max())
    leaf = starts([trial], model.config.embedding_dim)[0].requires_grad_()
    learned: list[Tensor] = [leaf]
    noise_layer: nn.Module = nn.Identity()
    if config.noise_layer:
        noise_layer = nn.Linear(dim, dim).double()
        numbers = initial_noise_layers([trial], dim)[0].double()
        nn.utils.vector_to_parameters(numbers, noise_layer.parameters())
        learned += noise_layer.parameters()
    adam = torch.optim.Adam(learned, lr=0.1, weight_decay=0.9)
    torch.manual_seed(trial.seed)
    history = []
    for step in range(config.steps):
        if step % config.steps_per_latents == 0:
            z = torch.randn(config.latents, dim)
        embedding = leaf.clamp(least, most).expand(config.latents, -1)
        images = model(embedding, noise_layer(z.double()))
        logits = judge.module(F.interpolate(images, size=224))
        log_prob = -F.cross_entropy(logits, torch.full((config.latents,), trial.class_id))
        history.append(float(log_prob.detach()))
        adam.zero_grad()
        (-log_prob).backward()
        adam.step()
    return leaf.detach().clamp(least, most), history


@pytest.mark.parametrize("noise_layer", [False, True])
@pytest.mark.parametrize("family", MODELS)
def test_equals_the_released_loop(family: str, noise_layer: bool) -> None:
    config = make_config(
        classes=(0, 1),
        profile="biggan-am",
        noise_layer=noise_layer,
        steps=9,
        steps_per_latents=3,
        seed=5,
    )
    assert config.latents == 10
    judge = classifier()
    for trial, result in zip(TRIALS, run(family, config), strict=True):
        embedding, history = released(MODELS[family][0], judge, trial, config)
        torch.testing.assert_close(result.embedding, embedding, rtol=0, atol=1e-6)
        torch.testing.assert_close(result.history[:, 0], torch.tensor(history), rtol=0, atol=1e-5)
        assert not torch.equal(result.start.clamp(-0.1, 0.1), result.start)


def test_every_trial_sees_the_same_latents() -> None:
    drawn = draw_shared_latents(5, [2, 0, 2], 4, 3, CPU)
    assert torch.equal(drawn[0], drawn[2])
    torch.manual_seed(5)
    stream = [torch.randn(4, 3) for _ in range(3)]
    assert torch.equal(drawn[0], stream[2])
    assert torch.equal(drawn[1], stream[0])


def test_a_noise_layer_is_a_linear_module_for_every_trial() -> None:
    layers = initial_noise_layers(TRIALS, 3)
    latents = torch.randn(len(TRIALS), 5, 3)
    module = nn.Linear(3, 3)
    for row, z, found in zip(layers, latents, apply_noise_layers(layers, latents), strict=True):
        nn.utils.vector_to_parameters(row, module.parameters())
        torch.testing.assert_close(found, module(z))
    assert layers.abs().max() <= 3**-0.5
    assert layers.abs().max() > 0.4
    assert not torch.equal(layers[0], layers[1])


@pytest.mark.parametrize("family", MODELS)
def test_a_noise_layer_learns_beside_the_papers_embedding(family: str) -> None:
    """Alone or among others, and with the embedding projected while its layer is not."""
    config = make_config(
        classes=(0, 1), noise_layer=True, steps=6, steps_per_latents=3, latents=4, seed=5
    )
    together = run(family, config)
    plain = run(family, config.model_copy(update={"noise_layer": False}))
    for trial, result, without in zip(TRIALS, together, plain, strict=True):
        (alone,) = run(family, config, [trial])
        torch.testing.assert_close(alone.embedding, result.embedding, rtol=0, atol=1e-6)
        assert result.embedding.shape == result.start.shape
        assert not torch.allclose(result.history, without.history, atol=1e-5)


class Mute:
    """A generator of which one method lets no gradient through."""

    def __init__(self, method: str) -> None:
        model, build = MODELS["biggan"]
        inner = build(model, name="mute", labels=("a", "b"), device=CPU, dtype=torch.float64)  # type: ignore[operator]
        self.spec, self.class_embeddings = inner.spec, inner.class_embeddings
        self.methods = {"prepare_latents": inner.prepare_latents, "__call__": inner.__call__}
        self.methods[method] = torch.no_grad()(self.methods[method])

    def prepare_latents(self, latents: Tensor) -> PreparedLatents:
        return self.methods["prepare_latents"](latents)

    def __call__(self, embeddings: Tensor, latents: Tensor | PreparedLatents) -> Tensor:
        return self.methods["__call__"](embeddings, latents)


@pytest.mark.parametrize("method", ["__call__", "prepare_latents"])
def test_a_generator_without_gradients_is_refused(method: str) -> None:
    """It would cost what a run costs, and learn nothing."""
    generator, judge = Mute(method), classifier()
    config = make_config(classes=(0, 1), noise_layer=True, steps=1, latents=2)
    found = optimize_trials(
        generator,
        objective_for(judge, config),
        TRIALS,
        lambda some: starts(some, generator.spec.embedding_dim),
        engine_settings(generator, judge, config),
    )
    with pytest.raises(UsageError, match=f"no gradient flows .* generator mute .* {method}"):
        list(found)
