from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from amfast.cli import main
from amfast.embedded import EMBEDDED
from tests.command import SMALL, amfast


class Finished(NamedTuple):
    """A run of ``SMALL`` that nothing disturbed."""

    run_dir: Path
    report: dict[str, Any]
    process: subprocess.CompletedProcess[str]


Invoke = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    outdir = tmp_path_factory.mktemp("finished")
    process = amfast(*SMALL, "--json", "--outdir", outdir, cwd=outdir)
    assert process.returncode == 0, process.stderr
    report = json.loads(process.stdout)
    return Finished(Path(report["run_dir"]), report, process)


@pytest.fixture
def invoke(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Invoke:
    """The command within this process, in ``tmp_path``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        words = [str(argument) for argument in arguments]
        with pytest.raises(SystemExit) as ended:
            main(words)
        return subprocess.CompletedProcess(words, int(ended.value.code or 0), *capfd.readouterr())

    return call


@pytest.fixture(scope="session")
def other_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded generator but for class 1, whose embedding overflows every layer."""
    path = tmp_path_factory.mktemp("weights") / "broken.safetensors"
    with safe_open(EMBEDDED / "generator.safetensors", framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    tensors["shared.weight"][1] = 3e38
    save_file(tensors, path, metadata)
    return path
