"""Where embeddings start, other than at a method's own place."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import amfast
from amfast.api import check_method, likest_rows
from amfast.classifiers.protocol import to_classifier_input
from amfast.config import make_config
from amfast.errors import UsageError
from amfast.optimize.initializers import METHODS, Start, initial_embeddings, parse_init
from amfast.optimize.profile import PROFILES
from amfast.optimize.trials import Trial, plan_trials
from tests.optimize.conftest import LinearClassifier, LinearGenerator

TABLE = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 6.0)


def test_names() -> None:
    assert parse_init("method", METHODS["am-s"]) == Start("own")
    assert parse_init("method", METHODS["am-l"]) == Start("mean")
    assert parse_init("random", METHODS["am-s"]) == Start("random")
    assert parse_init("top-5", METHODS["am-s"]) == Start("top", 5)


@pytest.mark.parametrize("text", ["", "top", "top-0", "top--1", "top-5x", "best", "top-99999"])
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"init: init is .*; it may be method, mean, own, random"):
        make_config(classes=(0,), init=text)


def test_trials_share_out_the_likest_rows() -> None:
    trials = plan_trials([7, 9], 3, seed=0)
    top = {7: [4, 2], 9: [1, 0]}
    found = initial_embeddings(Start("top", 2), 0.0, TABLE, trials, own={}, top=top)
    assert torch.equal(found, TABLE[[4, 2, 4, 1, 0, 1]])
    noisy = initial_embeddings(Start("top", 2), 0.1, TABLE, trials, own={}, top=top)
    assert 0.02 < (noisy - found).std() < 0.2


def test_random_starts_have_each_numbers_own_mean_and_deviation() -> None:
    trials = [Trial(0, i, 0) for i in range(3000)]
    found = initial_embeddings(Start("random"), 0.0, TABLE, trials, own={}, top={})
    assert ((found.mean(dim=0) - TABLE.mean(dim=0)).abs() < 0.1 * TABLE.std(dim=0)).all()
    assert ((found.std(dim=0) / TABLE.std(dim=0) - 1).abs() < 0.05).all()
    (alone,) = initial_embeddings(Start("random"), 0.0, TABLE, trials[5:6], own={}, top={})
    assert torch.equal(alone, found[5])


def test_the_likest_rows_by_hand(
    generator: LinearGenerator, classifier: LinearClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(classes=(2, 0), seed=3)
    z = torch.randn(1, 10, 3, generator=torch.Generator().manual_seed(3 ^ 0x70B5))
    probs = []
    for row in generator.class_embeddings:
        inputs = to_classifier_input(generator(row[None], z), classifier.spec)
        probs.append(classifier(inputs).softmax(1).mean(0))
    order = torch.stack(probs).argsort(dim=0, descending=True)
    found = likest_rows(generator, classifier, config, 2)  # type: ignore[arg-type]
    assert found == {i: order[:2, i].tolist() for i in (2, 0)}
    whole = replace(PROFILES["biggan-am"], raw_images=False)  # this judge takes 4 pixels alone
    monkeypatch.setitem(PROFILES, "biggan-am", whole)
    released = config.model_copy(update={"profile": "biggan-am"})
    ascending = likest_rows(generator, classifier, released, 2)  # type: ignore[arg-type]
    assert ascending == {i: rows[::-1] for i, rows in found.items()}


def test_a_run_starts_there(generator: LinearGenerator, classifier: LinearClassifier) -> None:
    result = amfast.optimize(
        *(generator, classifier),  # type: ignore[arg-type]
        classes="all",
        init="top-2",
        trials=2,
        steps=1,
        latents=4,
    )
    config = result.config
    top = likest_rows(generator, classifier, config, 2)  # type: ignore[arg-type]
    for found in result.trials:
        row = top[found.trial.class_id][found.trial.index]
        assert (found.start - generator.class_embeddings[row]).abs().max() < 0.6


def test_what_a_generator_cannot_start_from(
    generator: LinearGenerator, classifier: LinearClassifier
) -> None:
    with pytest.raises(UsageError, match="init top-4 picks among the classes .* which has 3"):
        check_method(generator, classifier, make_config(classes=(0,), init="top-4"))  # type: ignore[arg-type]
    generator.spec = generator.spec.__class__(**{**vars(generator.spec), "labels": ("x", "y", "z")})
    check_method(generator, classifier, make_config(classes=(0,), init="top-3"))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="has no class a: use am-l, .* or another --init"):
        check_method(generator, classifier, make_config(classes=(0,), init="own"))  # type: ignore[arg-type]
    check_method(generator, classifier, make_config(classes=(0,), method="am-s", init="mean"))  # type: ignore[arg-type]
