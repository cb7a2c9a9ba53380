from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from amfast.classes import select_classes
from amfast.embedded.train import COLLAPSED, ONE_COLOUR
from amfast.errors import UsageError
from amfast.evaluation.diagnose import ClassDiagnosis, Diagnosis, diagnose, threshold
from amfast.evaluation.networks import load_networks
from amfast.evaluation.pictures import sample_bytes, to_float
from amfast.metrics.embedding import evaluation_latents
from amfast.metrics.lpips import classifier_lpips
from tests.evaluation.conftest import CPU, HOURGLASS, RING, STAR


class SomeClasses:
    """Of the embedded generator, some rows alone, one of which may be moved."""

    def __init__(self, generator, rows: Sequence[int], embeddings=None) -> None:
        self._generator = generator
        labels = tuple(generator.spec.labels[row] for row in rows)
        self.spec = replace(generator.spec, labels=labels)
        self.class_embeddings = generator.class_embeddings[list(rows)].clone()
        for row, value in (embeddings or {}).items():
            self.class_embeddings[row] = value
        self.prepare_latents = generator.prepare_latents

    def __call__(self, embeddings, latents):
        return self._generator(embeddings, latents)


@pytest.mark.parametrize("seed", [0, 1])
def test_finds_exactly_the_poor_classes_of_the_embedded_pair(generator, networks, seed, tmp_path):
    done: list[str] = []
    found = diagnose(generator, networks, images=30, seed=seed, on_class=done.append)
    poor = {c.name: c.lacks for c in found.poor}
    assert poor.keys() == {*ONE_COLOUR, COLLAPSED}
    assert all("diversity" in lacks for lacks in poor.values())
    assert poor[COLLAPSED] == ("diversity", "recognisability")
    assert found.classes[0].name == COLLAPSED
    assert tuple(done) == generator.spec.labels
    health = [c.health for c in found.classes]
    assert health == sorted(health)
    assert [h < 1 for h in health] == [bool(c.lacks) for c in found.classes]

    path = tmp_path / "classes.txt"
    path.write_text(found.to_classes_file())
    chosen = select_classes(f"@{path}", generator.spec.labels)
    assert chosen == tuple(c.class_id for c in found.poor)
    back = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert [c["class_id"] for c in back["classes"][:4]] == list(chosen)
    assert (back["judge"], back["diversity_measure"]) == ("embedded", "lpips[embedded]")


def test_figures_are_those_of_the_metrics(generator, networks):
    found = diagnose(SomeClasses(generator, [RING, STAR]), networks, images=6, seed=5)
    images = to_float(
        sample_bytes(
            generator, generator.class_embeddings[STAR], evaluation_latents(6, 20, 5, CPU)
        ),
        CPU,
    )
    lpips = classifier_lpips(networks.judge)
    pairs = torch.combinations(torch.arange(6))
    diversity = float(lpips.distances(lpips.features(images), pairs).mean())
    logits = networks.judge(images)  # its size and range are the generator's
    probability = float(logits.softmax(1)[:, STAR].mean())
    (star,) = (c for c in found.classes if c.class_id == STAR)
    assert star.diversity == pytest.approx(diversity, rel=1e-4)
    assert star.target_prob == pytest.approx(probability, rel=1e-4)


def test_a_class_does_not_depend_on_the_others(generator, networks):
    few = diagnose(SomeClasses(generator, [STAR]), networks, images=5)
    more = diagnose(SomeClasses(generator, [RING, STAR, HOURGLASS]), networks, images=5)
    values = [
        next((c.diversity, c.target_prob) for c in d.classes if c.name == "star")
        for d in (few, more)
    ]
    assert values[0] == values[1]


def test_images_that_are_not_finite_are_the_worst_class(generator, networks):
    broken = SomeClasses(generator, [RING, STAR, 0, 1], {1: torch.nan})
    found = diagnose(broken, networks, images=4)
    worst = found.classes[0]
    assert (worst.name, worst.diversity, worst.target_prob, worst.health) == ("star", 0, 0, 0)
    assert worst.lacks == ("diversity", "recognisability")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"images": 1}, "images is 1; it must be a whole number from 2 to 2000"),
        ({"images": 2001}, "images is 2001"),
        ({"images": "9"}, "images is '9'; it must be a whole number"),
        ({"images": 2.5}, "images is 2.5; it must be a whole number"),
        ({"seed": "0"}, "seed is '0'; it must be a whole number"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**32}, "seed is 4294967296"),
    ],
)
def test_refuses_options_out_of_bounds(generator, networks, options, said):
    with pytest.raises(UsageError, match=said):
        diagnose(generator, networks, **options)


def test_a_judge_of_other_classes_is_refused(generator):
    unseen = load_networks(generator="embedded", judge="embedded-unseen", device=CPU)
    with pytest.raises(UsageError, match="embedded-unseen knows no class of embedded"):
        diagnose(generator, unseen, images=2)


def test_a_hostile_name_stays_a_comment(generator):
    row = ClassDiagnosis(2, "a\n0\u2028b\x85# [red]c", 0.1, 0.2, ("diversity",), 0.5)
    found = Diagnosis("g\n1", "00", "lpips", "judge", 4, 0, 0.2, 0.1, [row])
    text = found.to_classes_file()
    assert text.splitlines() == [
        "# classes of g 1 that need repair, the worst first",
        "2  # a 0 b # [red]c: lacks diversity",
    ]


def test_two_groups_are_cut_in_the_middle():
    assert threshold([1.0, 1.2, 3.0, 3.1, 3.2, 3.0, 2.9]) == pytest.approx((1.2 + 2.9) / 2)
    assert threshold([0.0, 0.9, 0.91, 0.92]) == pytest.approx(0.45)


def test_one_group_with_a_tail_is_cut_two_deviations_below_its_median():
    quantiles = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    values = (10 + math.sqrt(2) * torch.erfinv(2 * quantiles - 1)).tolist()
    assert threshold(values) == pytest.approx(8, abs=0.05)
    tail = [7.5 - 0.5 * i for i in range(5)]
    cut = threshold(tail + values)
    assert 7.5 < cut < 8.2
    assert sum(value < cut for value in tail + values) in range(5, 9)


@pytest.mark.parametrize("count", [1, 2, 3, 12])
def test_equal_values_are_all_well(count):
    assert threshold([2.0] * count) == pytest.approx(1.7)
    assert threshold([0.0] * count) == 0


def test_an_outlier_upwards_makes_nobody_poor():
    assert threshold([1.0, 1.01, 0.99, 1.0, 1.02, 9.0]) <= 0.85
    assert threshold([1.0, 1.5]) <= 0.85


def test_a_wide_upper_half_gives_no_threshold_below_zero():
    assert threshold([0.1, 0.2, 0.2, 5.0, 9.0, 14.0, 19.0]) == 0


def test_the_order_does_not_matter():
    values = [3.0, 1.0, 3.1, 2.9, 1.2, 3.2]
    assert threshold(values) == threshold(values[::-1])
