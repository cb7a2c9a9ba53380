"""``amfast plot``."""

from __future__ import annotations

import shutil

import pytest

from tests.command import amfast, assert_refused


@pytest.fixture
def run(tmp_path, finished):
    """A copy of a run that the command made, to be written into."""
    shutil.copytree(finished.run_dir, tmp_path / "run")
    return tmp_path / "run"


def test_the_real_command_draws_without_a_display(tmp_path, run):
    done = amfast("plot", "run", "--figure", "steps", "--out", "steps.pdf", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "wrote steps.pdf\n")
    assert (tmp_path / "steps.pdf").read_bytes().startswith(b"%PDF-")


def test_a_figure_of_one_class(run, invoke):
    done = invoke("plot", "run", "--figure", "4", "--class", "square", "--device", "cpu")
    assert (done.returncode, done.stderr) == (0, "wrote run/figure-4.svg\n")


def test_refusals(run, invoke):
    for arguments, code, said in (
        (("run",), 1, "evaluation.json is missing, .* run amfast evaluate"),
        (("run", "--figure", "8"), 2, "no figure is called '8'"),
        (("run", "--figure", "4"), 2, "name it with --class"),
        (("run", "--out", "x.gif"), 2, "written as .gif"),
        (("none", "--figure", "steps"), 1, "cannot read none"),
    ):
        assert_refused(invoke("plot", *arguments), code, said)
