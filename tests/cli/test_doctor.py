from __future__ import annotations

import json
import platform

import torch

from amfast.ops import implementations
from tests.command import amfast


def test_json(tmp_path):
    done = amfast("doctor", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["versions"]["python"] == platform.python_version()
    assert report["versions"]["torch"] == torch.__version__
    assert {"amfast", "numpy", "safetensors"} <= set(report["versions"])
    assert report["devices"]["cpu"].startswith("1 threads")
    assert report["devices"]["auto"] == "cpu, float32"
    assert {"target_log_prob", "target_log_prob_backward"} <= {op["op"] for op in report["ops"]}
    for op in report["ops"]:
        assert op["device"] and op["implementation"] and op["reason"]


def test_table(invoke):
    answer = invoke("doctor")
    assert (answer.returncode, answer.stderr) == (0, "")
    for word in ("versions", "devices", "implementations", torch.__version__):
        assert word in answer.stdout
    for op in implementations():
        assert op.op in answer.stdout
