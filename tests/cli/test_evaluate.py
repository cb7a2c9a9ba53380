"""The commands that measure: evaluate, rank and diagnose."""

from __future__ import annotations

import json
import shutil

import pytest

from amfast.cli import diagnose as diagnose_command
from amfast.cli import evaluate as evaluate_command
from amfast.evaluation.diagnose import ClassDiagnosis, Diagnosis
from tests.command import amfast, assert_refused, listing

SMALL = ("--images-per-class", "4", "--pairs", "6", "--device", "cpu")
#: Markup of rich's, and what would make a terminal clear its screen.
HOSTILE = "[red]a[/]\x1b[2Jb"


@pytest.fixture
def run(tmp_path, finished):
    """A copy of a run that the command made, to be written into."""
    shutil.copytree(finished.run_dir, tmp_path / "run")
    return tmp_path / "run"


def test_the_real_command_evaluates_a_run(tmp_path, run, finished):
    done = amfast("evaluate", "run", *SMALL, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert value == json.loads((run / "evaluation.json").read_text())
    best = {c["class_id"]: c["best"] for c in finished.report["classes"]}
    assert {c["class_id"]: c["trial"] for c in value["classes"]} == best
    assert "evaluating 3 classes\n" in done.stderr


def test_tables_show_the_sets_side_by_side(run, invoke):
    done = invoke("evaluate", "run", *SMALL)
    assert done.returncode == 0
    for said in ("0 disk", "lpips[embedded]", "ms_ssim", "top1[embedded]", "original", "mixed",
                 "real", "fid[embedded]", "coverage[embedded]", "inception_score[embedded]",
                 "figures: run/evaluation.json"):  # fmt: skip
        assert said in done.stdout
    assert "note: a split of 1 images cannot show 12 classes" in done.stderr


def test_some_metrics_and_no_real_images(run, invoke):
    done = invoke("evaluate", "run", *SMALL, "--metrics", "ms_ssim, accuracy", "--against",
                  "original", "--json")  # fmt: skip
    value = json.loads(done.stdout)
    assert value["overall"]["sets"].keys() == {"original", "am", "mixed"}
    assert [m["name"] for m in value["overall"]["sets"]["am"]] == ["ms_ssim", "top1[embedded]"]
    assert value["overall"]["gap_closed_percent"] == {}
    only = invoke("evaluate", "run", *SMALL, "--metrics", "inception_score")
    assert only.returncode == 0 and "inception_score[embedded]" in only.stdout
    assert "1 square" not in only.stdout  # of a class alone nothing was asked


def test_a_hostile_run_name_is_shown_and_not_obeyed(tmp_path, run, invoke):
    run.rename(tmp_path / "run\x1b[2J")
    done = invoke("evaluate", "run\x1b[2J", *SMALL, "--metrics", "ms_ssim")
    assert "figures: run\\x1b[2J/evaluation.json\n" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_failed_trials_are_named(run, invoke):
    summary = json.loads((run / "summary.json").read_text())
    lost = summary["classes"][1]["trials"][0]
    lost.update(failed_at=3, score=None)
    summary["classes"][1]["name"] = HOSTILE
    (run / "summary.json").write_text(json.dumps(summary))
    ranked = invoke("rank", "run")
    assert ranked.returncode == 0
    assert "; trial 0 failed at step 3" in " ".join(ranked.stdout.split())
    assert "[red]a[/]\\x1b[2Jb" in ranked.stdout and "\x1b" not in ranked.stdout
    assert_refused(invoke("evaluate", "run", *SMALL), 2, r"class 1 is .* 'square' for the judge")

    summary["classes"][1]["name"] = "square"
    (run / "summary.json").write_text(json.dumps(summary))
    done = invoke("evaluate", "run", *SMALL, "--metrics", "accuracy")
    assert done.returncode == 0
    assert "trial 0 of class 1 square failed at step 3\n" in done.stderr
    stored = json.loads((run / "evaluation.json").read_text())
    assert stored["failed"] == [{"class_id": 1, "name": "square", "trial": 0, "failed_at": 3}]


def test_rank_says_why(run, invoke, finished):
    done = invoke("rank", "run", "--json", "--min-target-prob", "0", "--by", "ms_ssim")
    value = json.loads(done.stdout)
    assert (value["min_target_prob"], value["by"]) == (0, "ms_ssim")
    for found, known in zip(value["classes"], finished.report["classes"], strict=True):
        similar = [trial["score"]["ms_ssim"] for trial in known["trials"]]
        assert found["best"] == similar.index(min(similar))
        assert "the most diverse of the 2 of 2" in found["why"]
    table = invoke("rank", "run")
    assert table.returncode == 0 and "2 triangle" in table.stdout


def test_ctrl_c_ends_with_130_and_writes_nothing(run, invoke, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate_command, "evaluate_path", interrupt)
    assert invoke("evaluate", "run", *SMALL).returncode == 130
    assert not (run / "evaluation.json").exists()


def test_refusals(tmp_path, run, invoke):
    before = listing(tmp_path)
    for arguments, code, said in (
        (("evaluate", "none"), 1, "none is not there: give a run directory"),
        (("evaluate", "run", "--metrics", "beauty"), 2, "no metric is called 'beauty'"),
        (("evaluate", "run", "--metrics", ","), 2, "no metric was asked for"),
        (("evaluate", "run", "--images-per-class", "1"), 2, "images-per-class is 1"),
        (("evaluate", "run", "--pairs", "0"), 2, "pairs is 0"),
        (("evaluate", "run", "--seed", "-1"), 2, "seed is -1"),
        (("evaluate", "run", "--features", "best"), 2, "features is 'best'"),
        (("evaluate", "run", "--generator", "embedded"), 2, "names its generator itself"),
        (("evaluate", "run", "--against", "nowhere"), 2, "nowhere is not there"),
        (("evaluate", "run", "--min-target-prob", "2"), 2, "min-target-prob is 2"),
        (("rank", "run", "--by", "looks"), 2, "by is 'looks'"),
        (("rank", "."), 1, "cannot read run.json"),
        (("diagnose", "--images", "1"), 2, "images is 1"),
        (("diagnose", "--generator", "embeded"), 2, "embeded"),
    ):
        device = () if arguments[0] == "rank" else ("--device", "cpu")
        assert_refused(invoke(*arguments, *device), code, said)
    assert listing(tmp_path) == before


def test_the_real_diagnosis_feeds_a_run(tmp_path, invoke):
    done = amfast("diagnose", "--images", "24", "--out", "classes.txt", "--device", "cpu", "--json",
                  cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    poor = [c["name"] for c in value["classes"] if c["lacks"]]
    assert sorted(poor) == ["crescent", "heart", "hourglass", "star"]
    assert "wrote classes.txt: 4 classes, for amfast run --classes @classes.txt" in done.stderr
    run = invoke("run", "--classes", "@classes.txt", "--trials", "1", "--steps", "1", "--latents",
                 "2", "--device", "cpu", "--json")  # fmt: skip
    assert [c["name"] for c in json.loads(run.stdout)["classes"]] == poor


def test_a_diagnosis_is_shown(invoke, monkeypatch):
    row = ClassDiagnosis(1, HOSTILE, 0.5, 0.25, ("diversity",), 0.5)
    well = ClassDiagnosis(0, "moon", 2, 0.75, (), 2)
    found = Diagnosis("g", "00", "lpips[x]", "judge", 4, 0, 1.0, 0.125, [row, well])
    monkeypatch.setattr(diagnose_command, "diagnose_generator", lambda *a, **o: found)
    done = invoke("diagnose", "--device", "cpu")
    assert "1 [red]a[/]\\x1b[2Jb" in done.stdout and "\x1b" not in done.stdout
    assert "lpips[x]" in done.stdout
    assert (
        "1 of 2 classes need repair: diversity below 1.000 or target probability below 0.125"
        in (done.stdout)
    )


def test_a_diagnosis_that_finds_nothing_makes_no_class_file_to_run(invoke, monkeypatch, tmp_path):
    well = ClassDiagnosis(0, "moon", 2, 0.75, (), 2)
    found = Diagnosis("g", "00", "lpips", "judge", 4, 0, 1.0, 0.125, [well])
    monkeypatch.setattr(diagnose_command, "diagnose_generator", lambda *a, **o: found)
    done = invoke("diagnose", "--device", "cpu", "--out", "classes.txt")
    assert done.stderr == "wrote classes.txt: 0 classes\n"
    assert "0 of 1 classes need repair" in done.stdout
    assert_refused(invoke("run", "--classes", "@classes.txt"), 2, "no class was selected")


def test_a_place_that_takes_no_class_file_is_known_before_the_work(invoke, monkeypatch, tmp_path):
    worked: list[object] = []
    monkeypatch.setattr(diagnose_command, "load_generator", lambda *a, **o: worked.append(a))
    for out, said in (
        ("none/classes.txt", "cannot write none/classes.txt: no such file or directory"),
        (".", "cannot write '.': it names a directory"),
        ("", "cannot write '.': it names a directory"),
    ):
        assert_refused(invoke("diagnose", "--device", "cpu", "--out", out), 1, said)
    assert worked == [] and listing(tmp_path) == []
