"""``amfast.optimize`` as a program would use it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import amfast
from amfast.api import rows_by_name
from amfast.metrics.embedding import EmbeddingScore
from tests.optimize.conftest import LinearClassifier, LinearGenerator

README = Path(__file__).parents[1] / "README.md"
FEW = {"trials": 2, "steps": 6, "latents": 4}


@pytest.fixture(scope="module")
def result() -> amfast.Result:
    return amfast.optimize(LinearGenerator(), LinearClassifier(), classes="a,c", **FEW)  # type: ignore[arg-type]


def test_shapes_and_order(result: amfast.Result) -> None:
    assert [(t.trial.class_id, t.trial.index) for t in result.trials] == [
        (0, 0),
        (0, 1),
        (2, 0),
        (2, 1),
    ]
    assert result.embeddings.shape == (4, 5)
    assert result.history.shape == (4, 6, 3)
    assert result.failed == []
    assert set(result.scores.original) == {0, 2}
    assert set(result.scores.trials) == {t.trial for t in result.trials}


def test_best_prefers_diversity_above_the_floor(result: amfast.Result) -> None:
    def score(prob: float, distance: float) -> EmbeddingScore:
        return EmbeddingScore(prob, 0.9, distance, ms_ssim=0.5, images=100, pairs=200)

    first, second, third, fourth = (t.trial for t in result.trials)
    result.scores.trials.update(
        {
            first: score(0.99, 0.2),
            second: score(0.85, 0.5),
            third: score(0.3, 0.9),
            fourth: score(0.6, 0.1),
        }
    )
    best = result.best()
    assert (best[0].trial, best[2].trial) == (second, fourth)
    assert result.best(min_target_prob=0.2)[2].trial == third
    assert result.best(min_target_prob=0.9)[0].trial == first


@pytest.mark.parametrize("batch", [1, 3])
def test_batches_do_not_change_the_result(result: amfast.Result, batch: int) -> None:
    other = amfast.optimize(
        LinearGenerator(),
        LinearClassifier(),
        classes=[0, "c"],
        batch_embeddings=batch,
        **FEW,  # type: ignore[arg-type]
    )
    torch.testing.assert_close(other.embeddings, result.embeddings, rtol=0, atol=1e-6)


def test_am_s_needs_the_generators_own_class() -> None:
    classifier = LinearClassifier()
    classifier.spec = amfast.ClassifierSpec(
        "other", 4, (0.5,) * 3, (0.5,) * 3, ("a", "b", "elsewhere"), "2"
    )
    with pytest.raises(amfast.UsageError, match=r"has no class elsewhere: use am-l"):
        amfast.optimize(LinearGenerator(), classifier, classes="elsewhere", method="am-s")
    found = amfast.optimize(LinearGenerator(), classifier, classes="elsewhere", **FEW)  # type: ignore[arg-type]
    assert found.scores.original == {}


def test_a_bare_module_is_a_classifier() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.AvgPool2d(56), nn.Flatten(), nn.Linear(48, 3))
    found = amfast.optimize(LinearGenerator(), module, classes="1", **FEW)  # type: ignore[arg-type]
    assert found.config.classifier == "Sequential"
    assert found.history[:, -1, 0].mean() > found.history[:, 0, 0].mean()


def test_bad_values_are_refused_before_any_work() -> None:
    for values in ({"trials": 0}, {"lr": -1.0}, {"method": "am-q"}, {"classes": "nobody"}):
        with pytest.raises(amfast.UsageError):
            amfast.optimize(LinearGenerator(), LinearClassifier(), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"generator": "embedded"}, "'embedded' is not loaded: use amfast.load_generator"),
        ({"classifier": "embedded"}, "'embedded' is not loaded: use amfast.load_classifier"),
        ({"classifier": None}, "None is not loaded"),
        ({"classes": None}, "classes should be ids and names, given None"),
        ({"method": ["am-l"]}, "method: "),
    ],
)
def test_wrong_types_get_a_sentence(changed: dict[str, object], sentence: str) -> None:
    arguments = {"generator": LinearGenerator(), "classifier": LinearClassifier(), **FEW, **changed}
    with pytest.raises(amfast.UsageError, match=sentence):
        amfast.optimize(**arguments)  # type: ignore[arg-type]


def test_one_class_by_its_id() -> None:
    found = amfast.optimize(LinearGenerator(), LinearClassifier(), classes=2, **FEW)  # type: ignore[arg-type]
    assert {t.trial.class_id for t in found.trials} == {2}


def test_a_step_out_of_this_world_fails_its_trial() -> None:
    """A zero gradient times an infinite step is NaN, which no clipping mends."""
    flat = LinearClassifier()
    flat.weight.zero_()
    found = amfast.optimize(LinearGenerator(), flat, classes="a", lr=1e39, trials=1, steps=1)  # type: ignore[arg-type]
    assert [t.failed_at for t in found.trials] == [0]
    assert found.embeddings.isfinite().all()


def test_the_readmes_example_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert 8 <= len(example.strip().splitlines()) <= 12
    original = amfast.optimize
    seen: list[amfast.Result] = []

    def short(*args: object, **values: object) -> amfast.Result:
        seen.append(original(*args, **{**values, "steps": 3, "trials": 2}))  # type: ignore[arg-type]
        return seen[-1]

    monkeypatch.setattr(amfast, "optimize", short)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, str(README), "exec"), {})
    assert len(seen) == 1


def test_of_two_rows_of_one_name_the_own_one_is_meant() -> None:
    labels = ("crane", "star", "crane")
    assert rows_by_name(labels, {0: "crane", 2: "crane", 1: "star", 5: "star", 3: "dome"}) == {
        0: 0,
        2: 2,
        1: 1,
        5: 1,
    }
