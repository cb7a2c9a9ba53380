"""How the executors scale on the cores of one machine, and what a shard costs beside its trials.

``python -m bench.scaling`` prints the tables of docs/cluster.md. Every run is the real command; one
thread for each worker, and the time that processes take to start is told apart by a run of as many
workers with next to no work.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.tables import markdown

WORKERS = (1, 2, 4)
STEPS, LATENTS = 100, 20
CLASSES, TRIALS = "0-11", 1
SHARDS = 60


def seconds(*options: object) -> float:
    """Of the command, from its start to its end; one thread where torch would take all."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "amfast", "run", "--device", "cpu", "--no-report"]
        words += ["--quiet", "--outdir", folder, *map(str, options)]
        tree = str(Path(__file__).parents[1])
        began = time.monotonic()
        subprocess.run(
            words, check=True, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": tree}
        )
        return time.monotonic() - began


def executor(name: str, workers: int) -> list[object]:
    if name == "inline":
        return []
    if name == "local":
        return ["--executor", "local", "--devices", ",".join(["cpu"] * workers)]
    return ["--executor", "ray", "--cpus-per-task", (os.cpu_count() or 1) / workers]


def scaling(names: list[str]) -> list[list[str]]:
    """Seconds of work for every executor and number of workers, and trials a minute."""
    work = ["--classes", CLASSES, "--trials", TRIALS, "--steps", STEPS, "--latents", LATENTS]
    none = ["--classes", CLASSES, "--trials", TRIALS, "--steps", 1, "--latents", 1]
    table, alone = [["executor", "workers", "start", "work", "speed against inline"]], 0.0
    for name in names:
        for workers in (1,) if name == "inline" else WORKERS:
            where = [
                *executor(name, workers),
                *([] if name == "inline" else ["--trials-per-task", 1]),
            ]
            start = seconds(*none, *where)
            busy = seconds(*work, *where) - start
            alone = alone or busy
            table.append([name, str(workers), f"{start:.1f}", f"{busy:.1f}", f"{alone / busy:.2f}"])
            print(*table[-1], file=sys.stderr)
    return table


def overhead(names: list[str]) -> list[list[str]]:
    """Milliseconds that one more shard costs, of a trial of one step of one latent."""
    few = ["--classes", "0", "--steps", 1, "--latents", 1, "--trials"]
    table = [["executor", "milliseconds for a shard"]]
    for name in names:
        where = executor(name, 2)
        one = ["--trials-per-task", 1] if name != "inline" else ["--batch-embeddings", 1]
        cost = (seconds(*few, SHARDS, *where, *one) - seconds(*few, 2, *where, *one)) / (SHARDS - 2)
        table.append([name, f"{1000 * cost:.0f}"])
        print(*table[-1], file=sys.stderr)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executors", default="inline,local,ray")
    names = parser.parse_args().executors.split(",")
    print(markdown(scaling(names)), markdown(overhead(names)), sep="\n\n")


if __name__ == "__main__":
    main()
