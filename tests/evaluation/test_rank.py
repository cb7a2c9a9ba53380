from __future__ import annotations

import json

import numpy as np
import pytest

from amfast.errors import RunError, UsageError
from amfast.evaluation.rank import RankedClass, rank_run
from amfast.exchange import import_embeddings
from tests.evaluation.conftest import MakeRun, entry, score


def ranked(make_run: MakeRun, *entries: dict, **options) -> list[RankedClass]:
    run = make_run()
    run.write_summary({"classes": list(entries)})
    return rank_run(run.path, **options)


def test_the_most_diverse_of_the_recognised_comes_first_and_the_reason_says_so(make_run):
    scores = {0: score(0.99, 0.2), 1: score(0.8, 0.3), 2: score(0.79, 0.9), 3: score(0.5, 0.8)}
    (found,) = ranked(make_run, entry(7, "kite", scores, score(0.6, 0.125)))
    assert (found.class_id, found.name) == (7, "kite")
    assert found.order == (1, 0, 2, 3) and found.best == 1
    assert found.why == (
        "trial 1: distance 0.300 (as trained 0.125), the most diverse of the 2 of 4 with a target "
        "probability of 0.8 or more"
    )


def test_the_floor_moves_the_choice(make_run):
    classes = entry(0, "kite", {0: score(0.9, 0.2), 1: score(0.7, 0.3)})
    assert ranked(make_run, classes)[0].order == (0, 1)
    (found,) = ranked(make_run, classes, min_target_prob=0.7)
    assert found.order == (1, 0)
    assert found.why.startswith("trial 1: distance 0.300, the most")  # nothing as trained
    assert [c.order for c in ranked(make_run, classes, min_target_prob=0)] == [(1, 0)]
    (found,) = ranked(make_run, classes, min_target_prob=1)
    assert found.order == (0, 1)
    assert found.why == (
        "trial 0: none reaches a target probability of 1, and it comes closest, with 0.900"
    )


def test_by_ms_ssim_less_is_more(make_run):
    classes = entry(0, "kite", {0: score(0.9, 0.3, 0.4), 1: score(0.9, 0.2, 0.1)}, score(1, 1, 0.6))
    (found,) = ranked(make_run, classes, by="ms_ssim")
    assert found.order == (1, 0)
    assert "MS-SSIM 0.100 (as trained 0.600)" in found.why


def test_failed_trials_are_named_and_not_ranked(make_run):
    two = ranked(
        make_run,
        entry(0, "kite", {0: None, 1: score(0.9, 0.2)}),
        entry(1, "moon", {0: None, 1: None}),
    )
    assert [c.best for c in two] == [1, None]
    assert [c.failed for c in two] == [{0: 1}, {0: 1, 1: 1}]
    assert two[0].why.endswith("; trial 0 failed at step 1")
    assert two[1].why == "no trial is left; trial 0 failed at step 1; trial 1 failed at step 1"
    assert two[1].order == ()


def test_ranks_as_the_summary_of_a_run_has_it(make_run):
    run = make_run()
    found = {ranked.class_id: ranked.best for ranked in rank_run(run.path)}
    assert found == {3: 1, 4: 1}


def test_to_json_is_strict_json_of_all(make_run):
    (found,) = ranked(make_run, entry(0, "kite", {0: None, 1: score(0.9, 0.2)}, score(0.1, 0.1)))
    back = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert back["best"] == 1 and back["order"] == [1] and back["failed"] == {"0": 1}
    assert back["scores"]["1"]["distance"] == 0.2
    assert back["original"]["target_prob"] == 0.1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"min_target_prob": 1.01}, "min-target-prob is 1.01"),
        ({"min_target_prob": float("nan")}, "min-target-prob is nan"),
        ({"min_target_prob": "0.5"}, "min-target-prob is '0.5'; it must be a number from 0 to 1"),
        ({"by": "looks"}, "by is 'looks'; it may be distance or ms_ssim"),
    ],
)
def test_refuses_options_out_of_bounds(make_run, options, said):
    with pytest.raises(UsageError, match=said):
        rank_run(make_run().path, **options)


def test_imported_embeddings_have_nothing_to_rank(tmp_path, generator):
    np.save(tmp_path / "003_star.npy", generator.class_embeddings[0].numpy())
    imported = import_embeddings([tmp_path / "003_star.npy"], outdir=tmp_path / "runs")
    with pytest.raises(RunError, match="imported embeddings, which have no trials .*evaluate"):
        rank_run(imported.path)


GOOD = entry(0, "kite", {0: score(0.9, 0.2)})


@pytest.mark.parametrize(
    "classes",
    [
        "kite",
        [1],
        ["kite"],
        [{}],
        [{**GOOD, "trials": None}],
        [{**GOOD, "trials": [{"trial": 0}]}],
        [{**GOOD, "trials": [{"trial": 0, "failed_at": None, "score": [1]}]}],
        [{**GOOD, "original": {"distance": 1}}],
        [{**GOOD, "name": "kite", "class_id": "first"}],
        [entry(0, "kite", {0: score("high", 0.2)})],  # type: ignore[arg-type]
        [entry(0, "kite", {0: score(float("nan"), 0.2)})],
        [entry(0, "kite", {0: score(0.9, float("inf"))})],
    ],
)
def test_a_damaged_summary_is_a_sentence(make_run, classes):
    run = make_run()
    run.summary_path.write_text(json.dumps({"classes": classes}))
    with pytest.raises(RunError, match="summary.json is damaged"):
        rank_run(run.path)


def test_an_unfinished_run_is_to_be_resumed(make_run):
    run = make_run()
    run.summary_path.unlink()
    with pytest.raises(RunError, match="the run has not come to its end; resume it"):
        rank_run(run.path)


def test_not_json_and_no_run(make_run, tmp_path):
    run = make_run()
    run.summary_path.write_text("{")
    with pytest.raises(RunError, match="summary.json is damaged"):
        rank_run(run.path)
    with pytest.raises(RunError, match="cannot read"):
        rank_run(tmp_path)
