"""Every experiment runs at a reduced size, is kept, and is read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from amfast.embedded import EMBEDDED
from amfast.errors import AmfastError, UsageError
from amfast.experiments import EXPERIMENTS, Reporter, reproduce

SMALL = {"steps": 2, "latents": 2, "trials": 1, "images_per_class": 10, "pairs": 4}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment(name: str, tmp_path: Path) -> None:
    classes = "ellipse,dome" if name == "places" else "star,hourglass"
    first = reproduce(name, tmp_path, classes=classes, **SMALL)
    folder = tmp_path / f"{name}-embedded-s0"
    stored = json.loads((folder / "experiment.json").read_bytes())
    assert stored["experiment"] == name and stored["options"]["classes"] == classes
    assert stored["findings"] and all(f["statement"] and f["figures"] for f in stored["findings"])
    for path in first.files.values():
        assert Path(path).exists()
    assert "real" in first.table
    assert ("as trained" in first.table) == (name != "places")


def test_what_is_there_is_not_done_again(tmp_path: Path) -> None:
    stages: list[str] = []
    reporter = Reporter(on_stage=stages.append)
    first = reproduce("collapse", tmp_path, reporter=reporter, **SMALL)
    measured = [stage for stage in stages if "measuring" in stage]
    assert len(measured) == 1
    again = reproduce("collapse", tmp_path, reporter=reporter, **SMALL)
    assert [stage for stage in stages if "measuring" in stage] == measured
    assert (again.table, again.findings) == (first.table, first.findings)
    assert len(list((tmp_path / "collapse-embedded-s0/runs/AM-L").iterdir())) == 1

    reproduce("collapse", tmp_path, reporter=reporter, **{**SMALL, "pairs": 5})
    kept = tmp_path / "collapse-embedded-s0" / "measured" / "AM-L.json"
    kept.write_text("{")
    assert reproduce("collapse", tmp_path, reporter=reporter, **SMALL).table == first.table
    assert len([stage for stage in stages if "measuring" in stage]) == 3


def test_an_unknown_name() -> None:
    with pytest.raises(UsageError, match="no experiment is called 'colapse'; there are collapse"):
        reproduce("colapse")


def test_an_unknown_option(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no option lr"):
        reproduce("collapse", tmp_path, lr=0.1)


@pytest.mark.parametrize("name", ["collapse", "noise", "human-study", "classifiers"])
def test_new_classes_have_nothing_to_be_compared_with(name: str, tmp_path: Path) -> None:
    unseen = {"classifier": "embedded-unseen", "classes": "dome", "judge": "embedded-unseen"}
    several = {"classifiers": ("embedded-unseen",)} if name == "classifiers" else {}
    with pytest.raises(UsageError, match="embedded has no class dome as trained to compare with"):
        reproduce(name, tmp_path, **SMALL, **unseen, **several)
    assert not list(tmp_path.rglob("trials"))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"pairs": 0}, "pairs is 0"),
        ({"images_per_class": 1}, "images-per-class is 1"),
        ({"seed": 2**32}, "seed is 4294967296"),
        ({"classes": "../../x"}, "unknown class '../../x'"),
        ({"steps": 0}, "steps: input should be"),
    ],
)
def test_what_cannot_begin_leaves_nothing(wrong: dict[str, Any], said: str, tmp_path: Path) -> None:
    outdir = tmp_path / "experiments"
    with pytest.raises(UsageError, match=said):
        reproduce("collapse", outdir, **{**SMALL, **wrong})
    assert not outdir.exists()


def test_a_folder_that_was_there_stays(tmp_path: Path) -> None:
    folder = tmp_path / "collapse-embedded-s0"
    folder.mkdir()
    with pytest.raises(UsageError, match="unknown class"):
        reproduce("collapse", tmp_path, **{**SMALL, "classes": "nothing"})
    assert folder.is_dir()


def test_snapshots_of_a_published_generator_have_to_be_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--snapshot PATH"):
        reproduce("snapshots", tmp_path, generator="biggan-128")
    assert EXPERIMENTS["snapshots"].published.generator == "biggan-128"


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"judge": "embedded-unseen"}, "not there for the judge embedded-unseen|name a classifier"),
        ({"against": "no-such-folder"}, "no-such-folder"),
        ({"features": "none"}, "features is 'none'"),
    ],
)
def test_what_a_measurement_lacks_is_known_before_any_trial(
    tmp_path: Path, option: dict[str, str], said: str
) -> None:
    stages: list[str] = []
    reporter = Reporter(on_stage=stages.append)
    with pytest.raises(AmfastError, match=said):
        reproduce("collapse", tmp_path, reporter=reporter, **SMALL, **option)
    assert stages == [] and not any(tmp_path.iterdir())


def test_other_weights_have_a_folder_of_their_own(tmp_path: Path) -> None:
    weights = EMBEDDED / "snapshots" / "generator-1000.safetensors"
    found = reproduce("collapse", tmp_path, weights=str(weights), **SMALL)
    assert found.folder.name == "collapse-embedded-generator-1000.safetensors-s0"
