from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import Mock

import pytest
from typer.testing import CliRunner

from amfast.cli import app, reproduce
from amfast.errors import UsageError
from amfast.experiments import EXPERIMENTS

SMALL = [
    "--steps",
    "2",
    "--latents",
    "2",
    "--trials",
    "1",
    "--images-per-class",
    "10",
    "--pairs",
    "4",
]


def test_the_list() -> None:
    shown = CliRunner().invoke(app, ["reproduce"], env={"COLUMNS": "120"})
    assert shown.exit_code == 0
    assert all(name in shown.stdout for name in EXPERIMENTS)
    listed = json.loads(CliRunner().invoke(app, ["reproduce", "--json"]).stdout)
    assert [entry["name"] for entry in listed] == list(EXPERIMENTS)


def test_an_experiment_in_words_and_as_json(tmp_path: Path) -> None:
    command = ["reproduce", "collapse", "--outdir", str(tmp_path), *SMALL]
    shown = CliRunner().invoke(app, command, env={"COLUMNS": "120"})
    assert shown.exit_code == 0, shown.output
    folder = tmp_path / "collapse-embedded-s0"
    said = shown.stdout.replace("\n", "")
    assert "AM-L raises the accuracy (top-1 " in said
    assert str(folder / "experiment.json") in said
    found = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    stored = json.loads((folder / "experiment.json").read_bytes())
    assert found["findings"] == stored["findings"] and found["table"] == stored["table"]


def test_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproduce, "reproduce_experiment", Mock(side_effect=KeyboardInterrupt))
    found = CliRunner().invoke(app, ["reproduce", "collapse", "--outdir", str(tmp_path)])
    assert found.exit_code == 130
    assert found.stderr == "amfast: interrupted; the same command goes on where it stopped\n"


def test_wrong_usage(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["reproduce", "nothing", "--outdir", str(tmp_path)])
    assert isinstance(found.exception, UsageError) and "collapse" in str(found.exception)
    assert not any(tmp_path.iterdir())
