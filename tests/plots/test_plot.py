"""Figures of a run: what is drawn, in the same bytes each time, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from amfast.errors import RunError, UsageError
from amfast.evaluation import evaluate_path
from amfast.evaluation.pictures import class_latents
from amfast.evaluation.subject import open_subject
from amfast.images.picture import to_bytes
from amfast.optimize.trials import plan_trials
from amfast.plots import canvas, interpolation, plot_run
from amfast.plots.canvas import style
from amfast.plots.interpolation import draw_interpolation
from amfast.plots.scatter import draw_scatter
from amfast.plots.trajectories import draw_trajectories
from amfast.runs import RunDirectory
from tests.tiny_run import finished

__all__ = ["finished"]

HOSTILE = "<script>$\\alpha</script>--> ../../x \x1b $x$"


@pytest.fixture(scope="session")
def evaluated(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = Path(shutil.copytree(finished, tmp_path_factory.mktemp("evaluated") / "run"))
    evaluate_path(run, images_per_class=8, pairs=12, device="cpu")
    return run


@pytest.fixture
def run(evaluated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(evaluated, tmp_path / "run"))


FIGURES: list[tuple[str, dict[str, Any]]] = [
    ("7", {}),
    ("4", {"class_name": "star", "device": "cpu"}),
    ("steps", {}),
]


@pytest.mark.parametrize(("figure", "options"), FIGURES)
def test_equal_runs_give_equal_bytes(
    run: Path, tmp_path: Path, figure: Any, options: dict[str, Any]
) -> None:
    for suffix in canvas.FORMATS:
        files = [tmp_path / f"{i}{suffix}" for i in range(2)]
        for file in files:
            assert plot_run(run, figure, out=file, **options) == file
        assert files[0].read_bytes() == files[1].read_bytes()
    ElementTree.parse(tmp_path / "0.svg")
    assert (tmp_path / "0.pdf").read_bytes().startswith(b"%PDF-")
    with Image.open(tmp_path / "0.png") as picture:
        assert picture.width > 1000 and len(picture.convert("L").getcolors() or []) > 1


def test_the_default_is_figure_7_as_svg_in_the_run(run: Path) -> None:
    assert plot_run(run) == run / "figure-7.svg"
    assert plot_run(run, "steps") == run / "figure-steps.svg"
    text = (run / "figure-7.svg").read_text()
    assert "<dc:date>" not in text and "matplotlib.org" not in text


def points(axes: Any) -> set[tuple[float, float]]:
    """The large marks with their intervals: all classes together."""
    return {(float(bar[0].get_xdata()[0]), float(bar[0].get_ydata()[0])) for bar in axes.containers}


def test_figure_7_shows_what_evaluation_json_holds(run: Path) -> None:
    overall = json.loads((run / "evaluation.json").read_text())["overall"]["sets"]

    def value(name: str, measure: str) -> float:
        return next(m["value"] for m in overall[name] if m["name"].split("[")[0] == measure)

    with style():
        axes = draw_scatter(run).axes
    assert len(axes) == 6
    grid = {
        (d, r): axes[3 * i + j]
        for i, d in enumerate(("lpips", "ms_ssim"))
        for j, r in enumerate(("top1", "inception_score", "fid"))
    }
    for (diversity, realism), drawn in grid.items():
        names = ["original", "am", "mixed"] + (["real"] if realism != "fid" else [])
        expected = {(value(name, realism), value(name, diversity)) for name in names}
        assert points(drawn) == expected
        lines = [line for line in drawn.lines if line.get_linestyle() == "--"]
        assert [line.get_ydata()[0] for line in lines] == [value("real", diversity)]
    small = [line for line in grid["lpips", "top1"].lines if line.get_markersize() == 3]
    assert len(small) == 2 * 4  # two classes, four sets
    assert not [line for line in grid["lpips", "fid"].lines if line.get_markersize() == 3]


def test_figure_7_of_an_evaluation_of_less(run: Path) -> None:
    (run / "evaluation.json").unlink()
    with pytest.raises(RunError, match=r"evaluation.json is missing.*run amfast evaluate"):
        plot_run(run)
    value: dict[str, Any] = {
        "metrics": ["lpips", "accuracy"], "against": "original", "images_per_class": 4, "pairs": 3,
    }  # fmt: skip
    evaluate_path(run, device="cpu", **value)
    with style():
        assert len(draw_scatter(run).axes) == 1
    for metric, lacking in (("lpips", "realism"), ("accuracy", "diversity")):
        evaluate_path(run, device="cpu", **{**value, "metrics": [metric]})
        with pytest.raises(RunError, match=f"has no measure of {lacking}: run amfast evaluate"):
            plot_run(run)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[" * 10_000,
        "[]",
        '{"format": "amfast-evaluation", "format_version": 2}',
        '{"format": "amfast-evaluation", "format_version": 1, "classes": [], "overall": '
        '{"sets": {"am": [{"name": "fid", "value": NaN, "low": null, "high": null}]}}}',
    ],
)
def test_a_damaged_evaluation_is_a_sentence(run: Path, content: str) -> None:
    (run / "evaluation.json").write_text(content)
    with pytest.raises(RunError, match=r"evaluation.json is damaged .* run amfast evaluate again"):
        plot_run(run)
    assert not (run / "figure-7.svg").exists()


def strips(figure: Any) -> list[torch.Tensor]:
    """The images ``[9, 3, R, R]`` of every row."""
    drawn = [torch.tensor(axes.images[0].get_array()) for axes in figure.axes]
    return [torch.stack(strip.permute(2, 0, 1).chunk(9, dim=2)) for strip in drawn]


def test_figure_4_goes_from_end_to_end(run: Path) -> None:
    with style():
        figure = draw_interpolation(run, "hourglass", seed=5, weights=None, device="cpu")
        own_z, am_z, c_first, c_second = strips(figure)
        labels = [axes.get_ylabel() for axes in figure.axes]
    assert [label.split("\n")[0] for label in labels] == ["original", "AM", "$z_1$", "$z_2$"]
    subject = open_subject(run, device="cpu")
    generator, target = subject.generator, subject.targets[1]
    latents = class_latents(generator, 11, 2, 5)
    with torch.no_grad():
        own, am = (
            to_bytes(generator(c[None], latents[None]))
            for c in (generator.class_embeddings[11], target.embedding)
        )
        half = generator.class_embeddings[11].lerp(target.embedding, 0.5)
        middle = to_bytes(generator(half[None], latents[None, :1]))[0]

    def alike(one: torch.Tensor, other: torch.Tensor) -> bool:
        return int((one.int() - other.int()).abs().max()) <= 1

    assert alike(own_z[0], own[0]) and alike(own_z[-1], own[1])
    assert alike(am_z[0], am[0]) and alike(am_z[-1], am[1])
    assert alike(c_first[0], own[0]) and alike(c_first[-1], am[0]) and alike(c_first[4], middle)
    assert alike(c_second[0], own[1]) and alike(c_second[-1], am[1])


def test_a_class_that_the_generator_lacks_starts_at_the_mean(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = open_subject(run, device="cpu")
    alien = replace(subject.targets[0], name=HOSTILE)
    monkeypatch.setattr(
        interpolation, "open_subject", lambda *a, **o: replace(subject, targets=[alien])
    )
    with style():
        figure = draw_interpolation(run, HOSTILE, seed=0, weights=None, device="cpu")
        first = strips(figure)[0]
        title = figure.get_suptitle()
        svg = canvas.to_file(figure, ".svg")
    assert figure.axes[0].get_ylabel().startswith("mean\n")
    assert title == HOSTILE.replace("\x1b", "\\x1b") + f", trial {alien.trial}"
    ElementTree.fromstring(svg)
    assert b"<script" not in svg
    mean = subject.generator.class_embeddings.mean(dim=0)
    latents = class_latents(subject.generator, 3, 2, 0)[:1]
    with torch.no_grad():
        expected = to_bytes(subject.generator(mean[None], latents[None]))[0]
    assert int((first[0].int() - expected.int()).abs().max()) <= 1


def test_trajectories_are_the_history_of_the_trials(run: Path) -> None:
    directory = RunDirectory.open(run)
    with style():
        every = draw_trajectories(run, None)
        one = draw_trajectories(run, "11")
    assert [len(axes.lines) for axes in every.axes] == [4, 4, 4]
    assert [len(axes.lines) for axes in one.axes] == [2, 2, 2]
    assert [line.get_label() for line in one.axes[0].lines] == [
        "hourglass, trial 0",
        "hourglass, trial 1",
    ]
    trials = plan_trials(directory.config.classes, 2, directory.config.seed)
    results, _ = directory.finished(trials)
    for column, axes in enumerate(every.axes):
        for line, result in zip(axes.lines, results.values(), strict=True):
            assert torch.equal(torch.tensor(line.get_ydata()), result.history[:, column])


def test_a_trial_that_is_missing_is_left_out_and_none_refused(run: Path) -> None:
    (run / "trials" / "0003-00.safetensors").unlink()
    with style():
        assert len(draw_trajectories(run, None).axes[0].lines) == 3
    (run / "trials" / "0003-01.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match="has no finished trial to draw"):
        plot_run(run, "steps", class_name="star")


def test_refusals(run: Path, tmp_path: Path) -> None:
    before = sorted(run.rglob("*"))
    refused: list[tuple[dict[str, Any], str]] = [
        ({"figure": "9"}, "no figure is called '9'; there are 4, 7, steps"),
        ({"figure": "4"}, "figure 4 is of one class: name it with --class"),
        ({"class_name": "star"}, "figure 7 is of all classes"),
        ({"out": tmp_path / "x.jpg"}, "written as .jpg; a figure is .svg"),
        ({"out": tmp_path / "x"}, "written as nothing"),
        ({"figure": "steps", "class_name": "moon"}, "unknown class 'moon'"),
        ({"figure": "steps", "class_name": "4"}, "has no class '4': it has 3 star, 11 hourglass"),
        ({"figure": "steps", "class_name": "all"}, "is 12 classes; the figure is of one"),
        ({"figure": "4", "class_name": "4", "device": "cpu"}, "has no class '4'"),
        ({"figure": "4", "class_name": "3", "seed": -1}, "seed is -1"),
    ]
    for options, said in refused:
        with pytest.raises(UsageError, match=said):
            plot_run(run, **options)
    for figure in ("7", "steps"):
        with pytest.raises(RunError, match="cannot write"):
            plot_run(run, figure, out=tmp_path / "none" / "x.svg")  # type: ignore[arg-type]
    with pytest.raises(RunError, match="cannot write"):
        plot_run(run, "4", class_name="3", out=tmp_path / "none" / "x.svg")
    with pytest.raises(RunError, match="cannot read"):
        plot_run(tmp_path, "steps", out=tmp_path / "x.svg")
    assert sorted(run.rglob("*")) == before


def test_without_matplotlib_a_sentence_says_how_to_get_it(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"pip install 'amfast\[plot\]'"):
        plot_run(run)


def test_the_users_own_settings_change_nothing(run: Path, tmp_path: Path) -> None:
    import matplotlib

    plot_run(run, out=tmp_path / "plain.svg")
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "none", "axes.grid": True}):
        plot_run(run, out=tmp_path / "other.svg")
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "plain.svg").read_bytes() == (tmp_path / "other.svg").read_bytes()


def test_figures_that_are_not_finite_are_refused(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> torch.Tensor:
        return torch.full((9, 3, 8, 8), torch.nan)

    monkeypatch.setattr(interpolation, "frame_images", broken)
    with pytest.raises(RunError, match="images of class star .* are not finite"):
        plot_run(run, "4", class_name="star", device="cpu")
