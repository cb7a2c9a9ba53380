"""A run of the benchmarks beside the stored results of the same device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import report
from bench.machine import cpu_model, slug

CPU: dict[str, Any] = {
    "gpu": None,
    "cpu_model": "Acme(R) Quick(TM) CPU E5 @ 2.50GHz",
    "threads": 2,
    "torch": "2.15.0",
}


def run_of(engine: float, plain: float) -> dict[str, Any]:
    """A report as pytest-benchmark writes it, of one group of two contestants."""
    of = {"group": "trial embedded-cpu", "stats": {"min": engine, "median": 9.0}}
    info: dict[str, Any] = {"contestant": "engine", "units": 32, "device": "cpu"}
    plain_info = {**info, "contestant": "plain", "units": 1}
    return {
        "machine_info": {**CPU, "node": "a-host-name"},
        "benchmarks": [
            {**of, "extra_info": info},
            {**of, "extra_info": plain_info, "stats": {"min": plain}},
        ],
    }


def test_seconds_are_by_the_unit_and_hosts_are_not_named() -> None:
    found = report.condense(run_of(engine=16.0, plain=2.0))
    contestants = found["results"]["trial embedded-cpu"]
    assert contestants["engine"] == {"seconds": 0.5, "device": "cpu"}
    assert contestants["plain"]["seconds"] == 2.0
    assert found["machine"] == CPU


def test_ratios_of_contestants_and_of_runs() -> None:
    now = report.condense(run_of(engine=16.0, plain=2.0))
    before = report.condense(run_of(engine=8.0, plain=2.5))
    _, engine, plain = report.table(now, before)
    assert engine == ["trial embedded-cpu", "engine", "0.5", "", "2.00"]
    assert plain == ["trial embedded-cpu", "plain", "2", "4.00", "0.80"]


def test_a_group_that_was_not_stored_has_no_ratio_of_runs() -> None:
    now = report.condense(run_of(engine=16.0, plain=2.0))
    before = {"machine": CPU, "results": {}}
    assert [row[-1] for row in report.table(now, before)[1:]] == ["", ""]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(run_of(engine=16.0, plain=2.0)))
    return path


def test_without_stored_results_it_says_so_and_stores_on_demand(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    report.main([str(written)], results)
    printed = capsys.readouterr().out
    assert "Nothing is stored for this device (acme-quick-e5-2-threads.json)" in printed
    assert "4.00" in printed
    assert not results.exists()

    report.main([str(written), "--save"], results)
    assert (results / "acme-quick-e5-2-threads.json").is_file()
    capsys.readouterr()
    report.main([str(written)], results)
    printed = capsys.readouterr().out
    assert "Nothing is stored" not in printed
    assert "1.00" in printed


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="make bench"):
        report.main([str(tmp_path / "bench.json")], tmp_path)


def test_the_device_names_the_file(tmp_path: Path) -> None:
    assert slug({**CPU, "gpu": "NVIDIA H200"}) == "nvidia-h200"
    assert slug({**CPU, "gpu": "Tesla V100-SXM2-16GB"}) == "tesla-v100-sxm2-16gb"
    assert slug(CPU) == "acme-quick-e5-2-threads"
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nmodel name\t: Acme Quick\nmodel name\t: Acme Quick\n")
    assert cpu_model(info) == "Acme Quick"
    info.write_text("processor : 0\n")
    assert cpu_model(info)
