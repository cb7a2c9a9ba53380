from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import pytest

from amfast.experiments.measured import Measured
from amfast.experiments.recipes.diversity import diversity
from amfast.experiments.recipes.statements import brings_less, more_diverse, more_recognised


def evaluation(**classes: tuple[float | None, float]) -> dict[str, Any]:
    """LPIPS as trained and AM's, by class; accuracy rises from 0.5 to 0.75."""

    def sets(own: float | None, am: float) -> dict[str, Any]:
        found = {"am": [{"name": "lpips[net]", "value": am}, {"name": "top1[net]", "value": 0.75}]}
        if own is not None:
            found["original"] = [
                {"name": "lpips[net]", "value": own},
                {"name": "top1[net]", "value": 0.5},
            ]
        return found

    return {
        "overall": {"sets": sets(1.0, 2.0)},
        "classes": [
            {"class_id": i, "name": name, "sets": sets(*values)}
            for i, (name, values) in enumerate(classes.items())
        ],
    }


def test_values_by_plain_names() -> None:
    found = Measured(evaluation(star=(1.0, 3.0), new=(None, 2.0)))
    assert found["lpips", "am"] == 2
    assert found["lpips", "am", 0] == 3
    assert found.value("lpips", "original", 1) is None
    assert found.value("fid") is None
    assert found.row("am") == {"lpips[net]": 2.0, "top1[net]": 0.75}
    with pytest.raises(KeyError, match="was not measured"):
        found["fid", "am"]


@pytest.mark.parametrize(("heart", "holds"), [((1.0, 1.5), True), ((1.0, 0.9), False)])
def test_diversity_has_to_rise_in_every_class_that_there_was(
    heart: tuple[float, float], holds: bool
) -> None:
    found = more_diverse("AM-L", Measured(evaluation(star=(1.0, 3.0), heart=heart, new=(None, 1))))
    assert found.holds == holds
    assert found.figures.startswith("star 1.00 -> 3.00, heart 1.00 -> ")
    assert "new" not in found.figures


def test_nothing_to_compare_is_no_success() -> None:
    assert not more_diverse("AM-L", Measured(evaluation(new=(None, 1.0)))).holds


def test_accuracy() -> None:
    found = more_recognised("AM-L", Measured(evaluation(star=(1.0, 3.0))))
    assert found.holds and found.figures == "top-1 0.50 -> 0.75"


@pytest.mark.parametrize(
    ("am", "baseline", "holds", "said"),
    [
        (3.0, 1.5, True, "25 % of AM-L's gain in LPIPS; top-1 0.50 -> 0.75, AM-L 0.75"),
        (3.0, 2.5, False, "75 % of AM-L's gain"),
        (1.0, 0.5, False, "AM-L gains nothing in LPIPS: +0.00, and this -0.50"),
        (0.5, 2.0, False, "AM-L gains nothing in LPIPS: -0.50, and this +1.00"),
    ],
)
def test_a_baseline_is_beaten_by_a_gain_alone(
    am: float, baseline: float, holds: bool, said: str
) -> None:
    measured = []
    for lpips in (baseline, am):
        found = evaluation()
        found["overall"]["sets"]["am"][0]["value"] = lpips
        measured.append(Measured(found))
    finding = brings_less("noise-S", measured[0], "AM-L", measured[1])
    assert finding.holds == holds and finding.figures.startswith(said)


@pytest.mark.parametrize(("am", "mixed"), [(0.0, 0.0), (-1.0, -0.8)])
def test_where_am_gains_nothing_a_mixture_keeps_nothing(am: float, mixed: float) -> None:
    found = evaluation(star=(0.0, am))
    values = {"original": (0.0, 3.0), "am": (am, 2.0), "mixed": (mixed, 1.0)}
    found["overall"]["sets"] = {
        key: [{"name": "lpips[net]", "value": lpips}, {"name": "fid[net]", "value": fid}]
        for key, (lpips, fid) in values.items()
    }
    lab = MagicMock()
    lab.measure.return_value = Measured(found)
    _, kept, *_ = diversity(lab)
    assert not kept.holds and kept.figures.startswith("there is no gain in LPIPS; FID as trained 3")


def test_a_long_list_is_cut() -> None:
    many = {f"c{i}": (1.0, 2.0) for i in range(12)}
    assert more_diverse("AM-L", Measured(evaluation(**many))).figures.endswith(
        "c9 1.00 -> 2.00, ..."
    )
