"""Compare a run of the benchmarks with the stored results of the same device.

``python -m bench.report build/bench.json`` prints the table of ratios; with ``--save`` the run's
results then take the place of the stored ones, ``bench/results/<device>.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.machine import slug
from bench.tables import aligned

RESULTS = Path(__file__).parent / "results"
OURS = ("engine", "kernel")
MACHINE = ("gpu", "cpu_model", "threads", "torch")

#: {"machine": {...}, "results": {group: {contestant: {"seconds": per unit of work, ...}}}}
Results = dict[str, Any]


def condense(report: Mapping[str, Any]) -> Results:
    """pytest-benchmark's report without what no comparison needs, host names among it.

    ``seconds`` is the fastest round's, by the unit of work that contestants share: a step of a
    trial, or a call.
    """
    results: dict[str, dict[str, Any]] = {}
    for benchmark in report["benchmarks"]:
        info = dict(benchmark["extra_info"])
        contestant, units = info.pop("contestant"), info.pop("units", 1)
        seconds = benchmark["stats"]["min"] / units
        results.setdefault(benchmark["group"], {})[contestant] = {"seconds": seconds, **info}
    return {"machine": {k: report["machine_info"][k] for k in MACHINE}, "results": results}


def path_of(results: Results, folder: Path) -> Path:
    return folder / f"{slug(results['machine'])}.json"


def stored(results: Results, folder: Path) -> Results | None:
    """The stored results of the device that ``results`` are of, None where there are none."""
    path = path_of(results, folder)
    found: Results | None = json.loads(path.read_text()) if path.is_file() else None
    return found


def save(results: Results, folder: Path) -> Path:
    path = path_of(results, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")
    return path


def table(now: Results, before: Results | None) -> list[list[str]]:
    """A row for every contestant: seconds, how many times faster ours is, now over stored."""
    rows = [["", "contestant", "seconds", "theirs / ours", "now / stored"]]
    for group, contestants in now["results"].items():
        ours = next((contestants[name] for name in OURS if name in contestants), None)
        for name, found in contestants.items():
            old = before and before["results"].get(group, {}).get(name)
            rows.append(
                [
                    group,
                    name,
                    f"{found['seconds']:.4g}",
                    f"{found['seconds'] / ours['seconds']:.2f}"
                    if ours and name not in OURS
                    else "",
                    f"{found['seconds'] / old['seconds']:.2f}" if old else "",
                ]
            )
    return rows


def main(arguments: list[str] | None = None, folder: Path = RESULTS) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("report", type=Path, help="what pytest wrote with --benchmark-json")
    parser.add_argument("--save", action="store_true", help="store this run's results")
    given = parser.parse_args(arguments)
    if not given.report.is_file():
        sys.exit(f"{given.report} is not there: run 'make bench' first, which writes it.")
    now = condense(json.loads(given.report.read_text()))
    before = stored(now, folder)
    print(aligned(table(now, before)))
    if before is None:
        print(
            f"\nNothing is stored for this device ({path_of(now, folder).name}), so that there is"
        )
        print("nothing to compare with. 'make bench-save' stores what was just measured.")
    if given.save:
        print(f"\nStored in {save(now, folder)}")


if __name__ == "__main__":
    main()
