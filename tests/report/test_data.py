"""A run directory as data, and the words for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from amfast.errors import RunError
from amfast.generators import Generator
from amfast.report.data import EvaluationData, RunData, read_run
from amfast.report.embedding_map import principal_plane
from amfast.report.figures import curve, map_chart, trajectory_chart, trials_chart
from amfast.report.licences import model_licences
from amfast.report.words import evaluation_findings, findings, headline
from amfast.runs import RunDirectory
from tests.report.conftest import HOSTILE, EditRun, imagined


def scored(distance: float, prob: float = 0.9) -> dict[str, Any]:
    counts = {"images": 10, "pairs": 20}
    return {"target_prob": prob, "accuracy": 1.0, "distance": distance, "ms_ssim": 0.3, **counts}


def test_what_a_run_holds(finished: Path) -> None:
    run = read_run(finished)
    assert [(c.number, c.class_id, c.name) for c in run.classes] == [
        (0, 3, "star"),
        (1, 11, "hourglass"),
    ]
    assert [t.number for t in run.trials] == [0, 1, 2, 3]
    star = run.classes[0]
    assert star.original is not None and star.best is not None
    for trial in star.trials:
        file = load_file(finished / "trials" / f"0003-{trial.index:02d}.safetensors")
        assert trial.embedding is not None and trial.history is not None
        assert torch.equal(trial.embedding, file["embedding"])
        assert torch.equal(trial.history, file["history"])
        assert trial.score is not None
        assert trial.gain == trial.score.distance - star.original.distance
    assert star.best.index == RunDirectory.open(finished).best()[3]
    assert run.notes == [] and run.failed == [] and run.evaluation is None
    assert run.created.startswith("20") and run.seconds_per_trial is not None


@pytest.mark.parametrize(
    ("original", "best", "verdict"),
    [
        (scored(0.2), scored(0.22), "gained"),
        (scored(0.2), scored(0.205), "level"),
        (scored(0.2), scored(0.18), "lost"),
        (scored(0.2), scored(0.4, 0.7), "unrecognised"),
        (None, scored(0.1), "new"),
        (None, scored(0.1, 0.79), "unrecognised"),
        (scored(0.2), None, "failed"),
    ],
)
def test_verdict(edit: EditRun, original: Any, best: Any, verdict: str) -> None:
    def change(summary: dict[str, Any]) -> None:
        star = summary["classes"][0]
        star["original"] = original
        for trial in star["trials"]:
            trial |= {"score": best, "failed_at": None if best else 1}

    run = read_run(edit("summary.json", change))
    assert run.classes[0].verdict == verdict
    said = findings(run)
    assert any(("star" in dict(f.items)) and f.tone in ("good", "bad", "plain") for f in said)
    assert (verdict == "gained") == any(
        "More diverse" in f.text and "star" in dict(f.items) for f in said
    )


def test_headlines(finished: Path) -> None:
    run = imagined(finished, 12, 2)
    assert headline(run) == "12 of 12 classes became more diverse"
    assert [f.more for f in findings(run) if f.items] == [4]
    new = imagined(finished, 14, 1)
    of_new = RunData(**{**vars(new), "classes": new.classes[12:]})
    assert headline(of_new) == "2 of 2 new classes recognised"
    lost = RunData(**{**vars(run), "classes": [
        type(c)(**{**vars(c), "verdict": "failed"}) for c in run.classes
    ]})  # fmt: skip
    assert headline(lost) == "Every trial failed"


def test_an_evaluation_that_contradicts_is_said() -> None:
    overall = {
        "original": {"lpips[alex]": 0.5, "ms_ssim": 0.3, "fid[x]": 10.0},
        "am": {"lpips[alex]": 0.9, "ms_ssim": 0.2, "fid[x]": 9.0},
        "real": {"lpips[alex]": 0.6, "ms_ssim": 0.1},
    }
    better, worse = evaluation_findings(EvaluationData("photos", 9, [], overall, {}, []))
    assert [name for name, _ in better.items] == ["MS-SSIM", "FID"]
    # More diverse than real images are is further from them, not nearer.
    assert worse.items == [("LPIPS", "0.50 → 0.90 (real 0.60)")]
    assert (better.tone, worse.tone) == ("good", "bad")


def test_notes_of_damaged_trials_and_of_the_run(edit: EditRun, generator: Generator) -> None:
    run = edit("run.json", lambda about: about["notes"].append("a smaller\x1b[2J pass"))
    (run / "trials" / "0003-00.safetensors").write_bytes(b"broken")
    found = read_run(run)
    assert found.notes[0] == "a smaller\\x1b[2J pass"
    assert found.notes[1].startswith("0003-00.safetensors cannot be used, being damaged or of")
    assert found.classes[0].trials[0].embedding is None
    mapped = map_chart(generator, found)
    assert mapped is not None
    assert [m.trial for m in mapped[0].marks if m.kind == "am"] == [1, 2, 3]
    assert [m.trial for m in trials_chart(found).marks if m.kind == "am"] == [0, 1, 2, 3]


def test_hostile_names_are_spelt_out(edit: EditRun) -> None:
    def rename(summary: dict[str, Any]) -> None:
        for entry in summary["classes"]:
            entry["name"] = HOSTILE[entry["class_id"]]

    names = [c.name for c in read_run(edit("summary.json", rename)).classes]
    assert names == [HOSTILE[3], '../../x" onclick="y\\x1b[2J\\x202egnp.exe']


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("summary.json", None, "has not come to its end"),
        ("summary.json", "{}", "damaged"),
        ("run.json", None, "cannot read"),
        ("evaluation.json", '{"classes": 3}', "damaged.*evaluate the run again"),
    ],
)
def test_what_cannot_be_reported(run: Path, name: str, content: str | None, said: str) -> None:
    if content is None:
        (run / name).unlink()
    else:
        (run / name).write_text(content)
    with pytest.raises(RunError, match=said):
        read_run(run)


def test_curves(finished: Path) -> None:
    history = torch.tensor([[-3.0, 0.1, 0.5], [-2.0, 0.2, 0.4], [float("nan")] * 3])
    assert curve(history, 0, 60) == [-3.0, -2.0, None]
    assert curve(history, 2, 2) == [0.5, None]
    assert curve(history[:, :2], 2, 60) == [] and curve(None, 0, 60) == []
    few = trajectory_chart(read_run(finished), 2, "pairwise distance")
    assert few is not None and [kind for kind, _ in few.lines] == ["each"] * 4 + ["median"]
    many = trajectory_chart(imagined(finished, 31, 2), 0, "log")
    assert many is not None and len(many.bands) == 1 and [k for k, _ in many.lines] == ["median"]
    assert trajectory_chart(read_run(finished), 7, "none") is None


def test_principal_plane() -> None:
    stream = torch.Generator().manual_seed(0)
    directions, _ = torch.linalg.qr(torch.randn(9, 9, generator=stream, dtype=torch.float64))
    spread = torch.tensor([5.0, 2.0] + [0.1] * 7, dtype=torch.float64)
    points = torch.randn(400, 9, generator=stream, dtype=torch.float64) * spread @ directions
    plane = principal_plane(points.float())
    assert (plane.axes @ directions[:2].T).abs().diagonal().min() > 0.999
    assert sum(plane.shares) > 0.99 and plane.shares[0] > plane.shares[1]
    torch.testing.assert_close(plane.axes @ plane.axes.T, torch.eye(2, dtype=torch.float64))
    largest = plane.axes.gather(1, plane.axes.abs().argmax(dim=1, keepdim=True))
    assert (largest > 0).all()
    # The same whatever signs a decomposition happens to give: mirrored points, mirrored map.
    mirrored = principal_plane(-points.float())
    torch.testing.assert_close(mirrored.axes, plane.axes)
    torch.testing.assert_close(plane(points).mean(dim=0), torch.zeros(2, dtype=torch.float64),
                               atol=1e-5, rtol=0)  # fmt: skip


def test_licences(finished: Path) -> None:
    config = read_run(finished).config

    def licences(**changes: Any) -> list[str]:
        return [found.licence for found in model_licences(config.model_copy(update=changes))]

    assert licences() == ["Apache-2.0, as amfast itself"] * 2
    published = licences(generator="biggan-deep-256", classifier="alexnet")
    assert published == ["MIT", "BSD-3-Clause"]
    own = licences(generator="biggan-256", weights="/x", classifier_weights="random")
    assert own == ["unknown: your own file", "none needed: random weights"]
    assert licences(classifier="timm:vit")[1].startswith("unknown here: timm's")
    assert licences(generator="mine")[0] == "unknown: your own model"
