"""The entry point, which is there before torch is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from tests.command import REPOSITORY, environment


def test_interrupt_while_torch_is_imported(tmp_path):
    (tmp_path / "torch.py").write_text(
        "import time\nprint('importing', flush=True)\ntime.sleep(60)\n"
    )
    paths = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    with subprocess.Popen(
        [sys.executable, str(REPOSITORY / "amfast_command.py"), "run"],
        env={**environment(measured=False), "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said == "amfast: interrupted before anything began; nothing was written\n"


def test_the_command_is_the_one_that_is_installed():
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "amfast_command.py"), "--help"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0 and "doctor" in done.stdout
    scripts = (REPOSITORY / "pyproject.toml").read_text()
    assert 'amfast = "amfast_command:main"' in scripts
