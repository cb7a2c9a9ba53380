"""Bad input by the thousand: ``python -m tests.fuzz.campaign --inputs 102000 --seed 0``.

Prints a row for every target and writes all of them, with what was found, as JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.target import Target
from tests.fuzz.targets import make_targets

#: A command takes as long as ten or twenty files.
_SHARE_OF_A_COMMAND = 0.1


@dataclass(frozen=True)
class Row:
    """``found`` counts what was neither taken nor refused, by what it was."""

    target: str
    inputs: int
    accepted: int
    refused: int
    seconds: float
    found: dict[str, int]


def attack(target: Target, inputs: int, number: int) -> Row:
    """So many inputs for one target, or all there are where it knows fewer."""
    counts: Counter[str] = Counter()
    found: Counter[str] = Counter()

    def attempt(value: Any) -> None:
        counts["inputs"] += 1
        try:
            counts["accepted" if target.attempt(value) else "refused"] += 1
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            frames = [
                f for f in traceback.extract_tb(error.__traceback__) if "amfast" in f.filename
            ]
            where = f" in {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
            found[f"{type(error).__name__}{where}: {str(error)[:120]}"] += 1

    target.use(target.sound)
    began = time.monotonic()
    settings(
        max_examples=inputs, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )(seed(number)(given(target.inputs)(attempt)))()  # fmt: skip
    taken, refused = counts["accepted"], counts["refused"]
    seconds = round(time.monotonic() - began, 1)
    return Row(target.name, counts["inputs"], taken, refused, seconds, dict(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="of all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("build/fuzz.json"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of Pillow and torch, about what is damaged
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as root:
        targets = make_targets(Path(root))
        shares = [_SHARE_OF_A_COMMAND if t.may_import else 1.0 for t in targets]
        for target, share in zip(targets, shares, strict=True):
            wanted = round(options.inputs * share / sum(shares)) + 1
            row = attack(target, wanted, options.seed)
            rows.append(row)
            print(
                f"{row.target:28} {row.inputs:7} inputs {row.refused:7} refused "
                f"{row.accepted:7} accepted {row.seconds:7.1f} s {sum(row.found.values()):5} found",
                flush=True,
            )
            for what, count in row.found.items():
                print(f"    {count} x {what}", flush=True)
    record = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seed": options.seed,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "inputs": sum(row.inputs for row in rows),
        "seconds": round(sum(row.seconds for row in rows), 1),
        "found": sum(sum(row.found.values()) for row in rows),
        "targets": [asdict(row) for row in rows],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=2) + "\n")
    print(f"{record['inputs']} inputs in {record['seconds']} s, {record['found']} found")
    sys.exit(bool(record["found"]))


if __name__ == "__main__":
    main()
