from __future__ import annotations

import pytest

from amfast.errors import UsageError, WeightsError
from amfast.evaluation.networks import load_networks
from amfast.metrics.features import ClassifierFeatures
from tests.evaluation.conftest import CPU


def test_the_embedded_pair_is_measured_by_its_own_features_and_says_so():
    found = load_networks(generator="embedded", device=CPU)
    assert found.judge.spec.name == "embedded"
    assert found.lpips.name == "lpips[embedded]"
    assert isinstance(found.features, ClassifierFeatures)
    assert found.features.classifier is found.judge
    assert found.lpips is found.lpips and found.features is found.features


def test_a_judge_of_other_classes_is_refused_where_it_is_asked():
    def refused(said, **options):
        for asked in ("judge", "labels", "lpips", "features"):
            with pytest.raises(UsageError, match=said):
                getattr(load_networks(generator="embedded", device=CPU, **options), asked)

    refused("class 0 is 'tench' in these embeddings and 'disk' for the judge embedded",
            class_names={0: "tench"})  # fmt: skip
    refused("class 12 is 'kite' .* and not there for the judge", class_names={12: "kite"})
    refused("class -1 is 'hourglass' .* and not there", class_names={-1: "hourglass"})
    refused("class 0 is 'disk' .* 'ellipse' for the judge embedded-unseen: name a classifier",
            class_names={0: "disk"}, judge="embedded-unseen")  # fmt: skip


@pytest.mark.parametrize(
    ("said", "options"),
    [
        (
            "features is 'best'; it may be one of auto, published, classifier",
            {"features": "best"},
        ),
        ("unknown classifier 'oracle'", {"judge": "oracle"}),
    ],
)
def test_unknown_names_are_refused_at_once(said, options):
    with pytest.raises(UsageError, match=said):
        load_networks(generator="embedded", device=CPU, **options)


def test_a_published_judge_has_names_without_its_weights():
    """There are none here."""
    named = load_networks(generator="biggan-128", class_names={3: "tiger shark"}, device=CPU)
    assert named.labels[3] == "tiger shark"
    with pytest.raises(WeightsError, match="amfast weights fetch inception_v3"):
        assert named.judge
    other = load_networks(generator="biggan-128", class_names={3: "star"}, device=CPU)
    with pytest.raises(UsageError, match="class 3 is 'star' .* for the judge inception_v3"):
        assert other.labels


def test_a_published_generator_may_be_judged_by_the_classifiers_own_features():
    found = load_networks(
        generator="biggan-128",
        judge="alexnet",
        judge_weights="random",
        features="classifier",
        device=CPU,
    )
    assert found.lpips.name.startswith("lpips[alexnet")
    assert found.features.name == found.judge.spec.name


def test_published_features_are_looked_for_when_they_are_needed(monkeypatch):
    import amfast.evaluation.networks as module

    asked: list[str] = []
    monkeypatch.setattr(module, "load_lpips", lambda net, *, device: asked.append(net))
    monkeypatch.setattr(module, "load_inception", lambda *, device: asked.append("inception"))
    found = load_networks(generator="embedded", features="published", device=CPU)
    assert asked == []
    assert found.lpips is None and asked == ["alex"]
    assert found.features is None and asked == ["alex", "inception"]
