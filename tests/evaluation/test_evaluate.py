from __future__ import annotations

import json

import pytest
import torch

from amfast.errors import RunError, UsageError
from amfast.evaluation import evaluate, gaps_closed
from amfast.evaluation.compare import PER_CLASS
from amfast.evaluation.evaluate import Target
from amfast.evaluation.pictures import RealImages, Renderer
from amfast.metrics.measure import Measure
from tests.evaluation.conftest import HOURGLASS, RING, STAR

SMALL = {"images_per_class": 6, "pairs": 10}


def measure(value, *, name="lpips", unit="pairs", n=200, width=0.01):
    bounds = (None, None) if width is None else (value - width, value + width)
    return Measure(name, value, n, unit, 0, None, *bounds)


def renderer(*class_ids, labels):
    return Renderer({i: labels[i] for i in class_ids}, size=64, seed=0)


def test_the_gap_is_a_share_of_the_way_to_the_real_images():
    sets = {
        "original": [measure(0.2), measure(0.6, name="ms_ssim")],
        "am": [measure(0.35), measure(0.3, name="ms_ssim")],
        "mixed": [measure(0.1), measure(0.2, name="ms_ssim")],
        "real": [measure(0.4), measure(0.2, name="ms_ssim")],
    }
    found = gaps_closed(sets)
    assert found["lpips"] == pytest.approx({"am": 75, "mixed": -50})
    assert found["ms_ssim"] == pytest.approx({"am": 75, "mixed": 100})


def test_an_original_more_diverse_than_the_real_images_has_no_gap():
    sets = {"original": [measure(0.6)], "am": [measure(0.5)], "real": [measure(0.4)]}
    assert gaps_closed(sets) == {}


@pytest.mark.parametrize(
    ("own", "real"),
    [
        (measure(0.4), measure(0.4)),
        (measure(0.39, width=0.02), measure(0.41, width=0.02)),  # the intervals meet
        (measure(0.394, width=0.001), measure(0.4, width=0.001)),  # less than a fiftieth
        (measure(0.2, width=None), measure(0.4)),  # a single pair has no interval
        (measure(0.2, n=100), measure(0.4, n=200)),  # not of the same classes
        (measure(0.2, unit="images"), measure(0.4, unit="images")),
        (measure(0.2), measure(0.4, name="top1")),
    ],
)
def test_no_gap_is_no_share(own, real):
    assert gaps_closed({"original": [own], "am": [measure(0.4)], "real": [real]}) == {}


def test_measures_are_matched_by_name_where_a_set_lacks_some():
    accuracy = measure(0.9, name="top1", unit="images")
    sets = {
        "original": [measure(0.2), measure(0.6, name="ms_ssim"), accuracy],
        "am": [measure(0.3, name="ms_ssim"), accuracy],
        "real": [measure(0.2, name="ms_ssim"), accuracy],
    }
    assert gaps_closed(sets) == {"ms_ssim": {"am": pytest.approx(75)}}
    assert gaps_closed({"original": sets["original"], "am": sets["am"], "real": [accuracy]}) == {}
    assert gaps_closed({"am": sets["am"], "real": sets["real"]}) == {}
    assert gaps_closed({}) == {}


def test_real_images_of_all_classes_have_fewer_pairs():
    sets = {"original": [measure(0.2)], "am": [measure(0.3)], "real": [measure(0.4, n=20)]}
    assert gaps_closed(sets) == {}
    assert gaps_closed(sets, alike=True) == {"lpips": {"am": pytest.approx(50)}}


def test_a_set_of_other_classes_has_no_share():
    sets = {"original": [measure(0.2)], "am": [measure(0.3, n=400)], "real": [measure(0.4)]}
    assert gaps_closed(sets) == {}


def test_moving_a_collapsed_class_closes_its_gap(generator, networks, make_target):
    seen = []
    found = evaluate(
        generator,
        [make_target(HOURGLASS, like=RING), make_target(RING, like=RING)],
        networks,
        real=renderer(HOURGLASS, RING, labels=generator.spec.labels),
        metrics=["lpips", "accuracy"],
        images_per_class=30,
        pairs=100,
        on_class=seen.append,
    )
    assert found.against == "renderer" and found.judge == "embedded"
    assert seen == found.classes
    hourglass, ring = found.classes
    assert gaps_closed(hourglass.sets)["lpips[embedded]"]["am"] > 60
    # The same embedding on the same latents: no other measure, and no gap that is closed.
    assert ring.sets["original"] == ring.sets["am"] == ring.sets["mixed"]
    accuracy = {name: measures[-1].value for name, measures in hourglass.sets.items()}
    assert accuracy["am"] < 0.5 < accuracy["real"]


def test_a_class_is_the_same_alone_and_with_others(generator, networks, make_target):
    real = renderer(STAR, HOURGLASS, labels=generator.spec.labels)
    targets = [make_target(HOURGLASS), make_target(STAR)]
    options = {"real": real, "metrics": PER_CLASS, **SMALL}
    both = evaluate(generator, targets, networks, **options)
    alone = evaluate(generator, targets[1:], networks, **options)
    assert both.classes[1].sets == alone.classes[0].sets


def test_equal_seeds_give_equal_figures_and_other_seeds_do_not(generator, networks, make_target):
    def figures(seed):
        targets = [make_target(STAR)]
        found = evaluate(generator, targets, networks, metrics=PER_CLASS, seed=seed, **SMALL)
        return json.dumps(found.to_json())

    assert figures(1) == figures(1)
    values = [json.loads(figures(seed))["overall"]["sets"]["am"][0]["value"] for seed in (1, 2)]
    assert values[0] != values[1]


def test_to_json_is_strict_and_whole(generator, networks, make_target):
    failed = [(STAR, "star", 1, 17)]
    found = evaluate(generator, [make_target(STAR)], networks, failed=failed, **SMALL)
    value = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert (value["format"], value["format_version"]) == ("amfast-evaluation", 1)
    assert value["generator_fingerprint"] == generator.spec.fingerprint
    assert (value["against"], value["judge"], value["seed"]) == ("original", "embedded", 0)
    assert (value["images_per_class"], value["pairs"]) == (6, 10)
    assert value["failed"] == [{"class_id": 3, "name": "star", "trial": 1, "failed_at": 17}]
    (star,) = value["classes"]
    assert {k: star[k] for k in ("class_id", "name", "trial", "why")} == {
        "class_id": 3, "name": "star", "trial": 0, "why": "a test's"
    }  # fmt: skip
    assert star["sets"].keys() == {"original", "am", "mixed"}
    assert star["gap_closed_percent"] == {}  # there is nothing real
    lpips = star["sets"]["am"][0]
    assert (lpips["name"], lpips["n"], lpips["unit"]) == ("lpips[embedded]", 10, "pairs")
    assert lpips["weights"] == networks.judge.spec.fingerprint
    assert lpips["low"] < lpips["value"] < lpips["high"]


def test_a_class_that_the_generator_lacks_has_no_original(generator, networks, make_target):
    names = dict(enumerate(networks.judge.spec.labels))
    unknown = Target(0, "kite", 0, generator.class_embeddings[0], "a test's")
    found = evaluate(generator, [unknown, make_target(STAR)], networks, **SMALL)
    assert [list(c.sets) for c in found.classes] == [["am"], ["original", "am", "mixed"]]
    assert "embedded has no class kite: no original to compare" in found.notes
    assert names[0] == "disk"


def test_an_original_that_is_not_finite_is_left_out(generator, networks, make_target, monkeypatch):
    broken = generator.class_embeddings.clone()
    broken[STAR] = torch.nan
    monkeypatch.setattr(generator, "class_embeddings", broken)
    target = make_target(STAR)
    found = evaluate(generator, [target], networks, **SMALL)
    assert list(found.classes[0].sets) == ["am"]
    assert "the class star as trained gives images that are not finite" in found.notes


def test_an_embedding_that_is_not_finite_is_refused(generator, networks, make_target):
    target = make_target(STAR, embedding=torch.full((128,), torch.nan))
    with pytest.raises(RunError, match="trial 0 of class 3 star gives images that are not finite"):
        evaluate(generator, [target], networks, **SMALL)


def test_fewer_real_images_are_measured_and_noted(generator, networks, make_target):
    class Few(RealImages):
        name = "few"

        def of_class(self, class_id, count):
            labels = generator.spec.labels
            return renderer(class_id, labels=labels).of_class(class_id, 4)

    found = evaluate(generator, [make_target(STAR)], networks, real=Few(), **SMALL)
    accuracy = found.classes[0].sets["real"][-1]
    assert accuracy.n == 4
    assert "few has 4 images of star, fewer than the 6 of the other sets" in found.notes


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"metrics": ["lpips", "beauty"]},
            "no metric is called 'beauty'; there are lpips, ms_ssim",
        ),
        ({"metrics": []}, "no metric was asked for"),
        ({"images_per_class": 1}, "images-per-class is 1; it must be a whole number"),
        ({"images_per_class": 100_001}, "images-per-class is 100001"),
        ({"pairs": 0}, "pairs is 0"),
        ({"seed": -1}, "seed is -1; it must be a whole number from 0 to 4294967295"),
        ({"metrics": "lpips"}, "metrics is 'lpips'; give a list, of lpips"),
        ({"images_per_class": "3"}, "images-per-class is '3'; it must be a whole number from 2"),
        ({"images_per_class": 2.5}, "images-per-class is 2.5"),
        ({"pairs": 1.5}, "pairs is 1.5; it must be a whole number from 1 to 1000000"),
        ({"pairs": True}, "pairs is True"),
        ({"seed": "0"}, "seed is '0'"),
    ],
)
def test_refuses_options_out_of_bounds(generator, networks, make_target, options, said):
    with pytest.raises(UsageError, match=said):
        evaluate(generator, [make_target(STAR)], networks, **options)


def test_nothing_to_evaluate_is_refused(generator, networks):
    with pytest.raises(UsageError, match="no embedding to evaluate"):
        evaluate(generator, [], networks)


def test_two_targets_of_a_class_are_refused(generator, networks, make_target):
    targets = [make_target(RING), make_target(STAR), make_target(STAR, like=STAR)]
    with pytest.raises(UsageError, match="there are 2 targets of class 3 star; give one embedding"):
        evaluate(generator, targets, networks, **SMALL)


def test_an_embedding_of_another_width_is_refused(generator, networks, make_target):
    narrow = make_target(STAR, embedding=generator.class_embeddings[STAR][:5])
    said = r"the embedding of class 3 star is \[5\]; embedded takes \[128\]"
    with pytest.raises(UsageError, match=said):
        evaluate(generator, [make_target(RING), narrow], networks)
