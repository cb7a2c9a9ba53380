from __future__ import annotations

import pytest
import torch

from amfast.classifiers import load_classifier
from amfast.evaluation import compare
from amfast.evaluation.compare import METRICS, Comparison, parse_metrics
from amfast.evaluation.networks import Networks
from amfast.evaluation.pictures import class_latents, sample_bytes, to_float
from amfast.metrics.accuracy import measure_accuracy
from amfast.metrics.diversity import random_pairs
from amfast.metrics.features import ClassifierFeatures
from amfast.metrics.frechet import RunningMoments, measure_fid
from amfast.metrics.inception_score import measure_inception_score
from amfast.metrics.jackknife import GroupedSums
from amfast.metrics.lpips import classifier_lpips
from amfast.metrics.measure import measure_mean
from amfast.metrics.ms_ssim import pairwise_ms_ssim
from amfast.metrics.neighbours import measure_neighbours
from tests.evaluation.conftest import CPU, HOURGLASS, RING, STAR

COUNT, PAIRS, SEED = 8, 12, 4


@pytest.fixture(scope="module")
def images(generator):
    """Class -> set -> images: those of two other classes stand in for optimised and real ones."""

    def of(class_id, row):
        latents = class_latents(generator, class_id + 50 * row, COUNT, 0)
        return sample_bytes(generator, generator.class_embeddings[row], latents)

    return {
        i: {"original": of(i, i), "am": of(i, RING), "real": of(i, 0)} for i in (STAR, HOURGLASS)
    }


def add(whole, class_id, images):
    return whole.add(class_id, whole.look(images))


def comparison(networks, metrics=METRICS, *, classes=2, reference="real"):
    return Comparison(
        networks, metrics, classes=classes, pairs=PAIRS, seed=SEED, reference=reference
    )


def mixed(of_class):
    half = COUNT // 2
    return torch.cat([of_class["original"][:half], of_class["am"][half:]])


def all_of(images, name):
    parts = [mixed(of) if name == "mixed" else of[name] for of in images.values()]
    return to_float(torch.cat(parts), CPU)


def named(measures):
    return {measure.name: measure for measure in measures}


def same(found, wanted):
    assert (found.name, found.n, found.unit, found.seed, found.weights, found.note) == (
        wanted.name, wanted.n, wanted.unit, wanted.seed, wanted.weights, wanted.note
    )  # fmt: skip
    for key in ("value", "low", "high", "std"):
        value = getattr(wanted, key)
        close = None if value is None else pytest.approx(value, rel=1e-4, abs=1e-6)
        assert getattr(found, key) == close, key


def test_measures_of_a_class_are_those_of_the_metrics_called_by_hand(networks, images):
    found = add(comparison(networks), STAR, images[STAR])
    assert list(found) == ["original", "am", "mixed", "real"]
    judge, lpips = networks.judge, classifier_lpips(networks.judge)
    network = ClassifierFeatures(judge)
    for name, measures in found.items():
        set_images = to_float(mixed(images[STAR]) if name == "mixed" else images[STAR][name], CPU)
        drawn = random_pairs(COUNT, PAIRS, SEED)
        got = named(measures)
        assert list(got) == ["lpips[embedded]", "ms_ssim", "top1[embedded]"]
        distances = lpips.distances(lpips.features(set_images), drawn)
        same(got["lpips[embedded]"], measure_mean(
            "lpips[embedded]", distances, unit="pairs", seed=SEED, weights=judge.spec.fingerprint
        ))  # fmt: skip
        same(got["ms_ssim"], measure_mean(
            "ms_ssim", pairwise_ms_ssim(set_images, drawn), unit="pairs", seed=SEED
        ))  # fmt: skip
        logits = network(set_images)[1]
        same(got["top1[embedded]"], measure_accuracy(logits, STAR, network, seed=SEED))


def test_overall_measures_are_those_of_the_metrics_over_all_images(networks, images):
    whole = comparison(networks)
    for class_id, of_class in images.items():
        add(whole, class_id, of_class)
    found = whole.overall()
    assert list(found) == ["original", "am", "mixed", "real"]
    network = ClassifierFeatures(networks.judge)
    features = {name: network(all_of(images, name)) for name in found}
    moments = {}
    for name, (of_set, logits) in features.items():
        running = RunningMoments(network)
        running.update(of_set)
        moments[name] = running.moments()
        score = named(found[name])["inception_score[embedded]"]
        same(score, measure_inception_score(logits, network, seed=SEED))
    for name in ("original", "am", "mixed"):
        own, groups = features[name][0], GroupedSums()
        groups.update(own)
        fid = measure_fid(moments[name], moments["real"], groups=groups, seed=SEED)
        same(named(found[name])["fid[embedded]"], fid)
        for wanted in measure_neighbours(own, features["real"][0], network, seed=SEED):
            same(named(found[name])[wanted.name], wanted)
    assert not {"fid[embedded]", "recall[embedded]"} & named(found["real"]).keys()
    assert named(found["am"])["lpips[embedded]"].n == 2 * PAIRS
    assert whole.notes == []


def test_a_class_is_the_same_alone_and_among_all(networks, images):
    whole = comparison(networks)
    add(whole, HOURGLASS, images[HOURGLASS])
    among = add(whole, STAR, images[STAR])
    assert add(comparison(networks, classes=1), STAR, images[STAR]) == among


@pytest.mark.parametrize(
    ("metrics", "of_class", "overall"),
    [
        (["ms_ssim"], {"ms_ssim"}, {"ms_ssim"}),
        (["accuracy"], {"top1[embedded]"}, {"top1[embedded]"}),
        (["fid"], set(), {"fid[embedded]"}),
        (["inception_score"], set(), {"inception_score[embedded]"}),
        (
            ["neighbours"],
            set(),
            {f"{m}[embedded]" for m in ("precision", "recall", "density", "coverage")},
        ),
    ],
)
def test_measures_what_was_asked_for_and_no_more(networks, images, metrics, of_class, overall):
    one = comparison(networks, metrics, classes=1)
    assert {m.name for m in add(one, STAR, images[STAR])["am"]} == of_class
    assert {m.name for m in one.overall()["am"]} == overall


@pytest.mark.parametrize(
    ("text", "metrics"),
    [
        ("all", list(METRICS)),
        ("all,lpips", list(METRICS)),
        (" fid ,,lpips", ["fid", "lpips"]),
        (",", []),
    ],
)
def test_names_of_metrics(text, metrics):
    assert parse_metrics(text) == metrics


def missing():
    raise AssertionError("not needed")


def bare(judge=missing, lpips=missing, features=missing):
    return Networks(judge, lpips, features, labels=missing, device=CPU)


def test_networks_that_no_metric_needs_are_not_loaded(networks, images):
    judged = bare(judge=lambda: networks.judge)
    add(comparison(judged, ["ms_ssim", "accuracy"]), STAR, images[STAR])
    for metric in ("lpips", "fid"):
        with pytest.raises(AssertionError, match="not needed"):
            comparison(judged, [metric])
    with pytest.raises(AssertionError, match="not needed"):
        comparison(bare(), ["accuracy"])


def test_diversity_and_distances_need_no_judge(networks, images):
    whole, without = (
        comparison(found, ["lpips", "ms_ssim", "fid"], classes=1)
        for found in (
            networks,
            bare(lpips=lambda: networks.lpips, features=lambda: networks.features),
        )
    )
    assert add(without, STAR, images[STAR]) == add(whole, STAR, images[STAR])
    assert without.overall() == whole.overall()
    assert without.key == whole.key


def test_the_judge_judges_where_the_features_are_anothers(networks, images):
    other = load_classifier("embedded-unseen", device=CPU, dtype="fp32")
    two = bare(
        lambda: networks.judge, lambda: classifier_lpips(other), lambda: ClassifierFeatures(other)
    )
    found = add(comparison(two), STAR, images[STAR])
    assert named(found["real"])["lpips[embedded-unseen]"].weights == other.spec.fingerprint
    alone = add(comparison(networks, ["accuracy"]), STAR, images[STAR])
    assert [m[-1] for m in found.values()] == [m[0] for m in alone.values()]


def test_beside_the_original_alone_mixed_has_no_distance_to_its_own_half(networks, images):
    one = comparison(networks, classes=1, reference="original")
    add(one, STAR, {name: images[STAR][name] for name in ("original", "am")})
    found = one.overall()
    assert list(found) == ["original", "am", "mixed"]
    assert "fid[embedded]" in named(found["am"])
    assert "fid[embedded]" not in named(found["mixed"])
    assert "inception_score[embedded]" in named(found["mixed"])


@pytest.mark.parametrize("count", [2, 3, 5, 6])
def test_few_images_are_measured_as_far_as_they_go(networks, images, count):
    one = comparison(networks, classes=1)
    add(one, STAR, {name: of_set[:count] for name, of_set in images[STAR].items()})
    found = named(one.overall()["am"])
    assert found["inception_score[embedded]"].n == count
    assert "too few for 96 features" in found["fid[embedded]"].note
    if count > 5:
        assert "density[embedded]" in found and one.notes == []
    else:
        assert "density[embedded]" not in found
        assert (
            f"no neighbours of {count} am and {count} real images: it takes 6 of each" in one.notes
        )


def test_one_real_image_has_no_pairs_and_no_fid(networks, images):
    one = comparison(networks, classes=1)
    found = add(one, STAR, {**images[STAR], "real": images[STAR]["real"][:1]})
    assert [m.name for m in found["real"]] == ["top1[embedded]"]
    overall = one.overall()
    assert "fid[embedded]" not in named(overall["am"])
    assert "no fid of 8 am and 1 real images: it takes 2 of each" in one.notes


def test_without_any_original_the_sets_that_are_there_are_measured(networks, images):
    one = comparison(networks, classes=1, reference="original")
    add(one, STAR, {"am": images[STAR]["am"]})
    found = one.overall()
    assert list(found) == ["am"]
    assert "no fid of 8 am and 0 original images: it takes 2 of each" in one.notes


def test_sets_keep_their_order_whatever_the_first_class_lacks(networks, images):
    whole = comparison(networks)
    add(whole, STAR, {name: images[STAR][name] for name in ("am", "real")})
    add(whole, HOURGLASS, images[HOURGLASS])
    assert list(whole.overall()) == ["original", "am", "mixed", "real"]


def test_neighbours_are_of_the_images_that_are_kept(networks, images, monkeypatch):
    monkeypatch.setattr(compare, "_KEPT", 14)
    whole = comparison(networks, ["neighbours", "fid"])
    for class_id, of_class in images.items():
        add(whole, class_id, of_class)
    found = named(whole.overall()["am"])
    assert found["precision[embedded]"].n == 14
    assert found["fid[embedded]"].n == 16


def test_fid_has_an_interval_of_all_images_however_few_are_kept(networks, images, monkeypatch):
    def interval():
        whole = comparison(networks, ["fid"], classes=3)
        for part in (STAR, HOURGLASS, STAR):
            add(whole, part, images[part])
        fid = named(whole.overall()["am"])["fid[embedded]"]
        assert fid.n == 24 and fid.low < fid.value < fid.high
        return fid

    all_kept = interval()
    monkeypatch.setattr(compare, "_KEPT", 4)
    assert interval() == all_kept
