"""Thousands of small trials in one process: does it keep its memory, its files and its trials?

``OMP_NUM_THREADS=1 python -m bench.soak`` -> bench/results/soak.json. A process of its own does a
small run and then the long one by what ``amfast run`` calls; this one watches it through /proc.
Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from amfast.device import keep_freed_memory
from amfast.optimize.engine import TrialResult
from amfast.runs.session import Listener, execute, prepare
from bench.machine import cpu_model

RESULTS = Path(__file__).parent / "results"
#: Part of the trials after which memory should have stopped growing, and by how much it still may.
WARM_UP, GROWTH = 0.1, 0.05
#: Of a trial, but for its number: slots, resamples and early ends, and little arithmetic.
OPTIONS: dict[str, Any] = {
    "classes": "all",
    "steps": 24,
    "latents": 2,
    "steps_per_latents": 4,
    "stop": "prob=0.7",
    "batch_embeddings": 16,
    "device": "cpu",
}
_CLASSES = 12


@dataclass(frozen=True)
class Sample:
    """What /proc says of a process; ``rss_mb`` in MB of 10^6 bytes."""

    finished: int
    rss_mb: float
    threads: int
    descriptors: int

    @staticmethod
    def of(pid: int | str, finished: int) -> Sample:
        process = Path("/proc", str(pid))
        lines = (line.split() for line in (process / "status").read_text().splitlines())
        status = {words[0]: words[1] for words in lines if len(words) > 1}
        descriptors = len(os.listdir(process / "fd"))
        rss = int(status["VmRSS:"]) * 1024 / 1e6
        return Sample(finished, round(rss, 1), int(status["Threads:"]), descriptors)


def inside(outdir: Path, trials: int, options: dict[str, Any]) -> dict[str, Any]:
    """The runs, in the process that is watched: what came of every trial, and what is left open.

    Whatever libraries start and open once, the small run has them start and open before.
    """
    keep_freed_memory()
    ended: list[TrialResult] = []
    execute(prepare(**options, trials=1), outdir / "first")
    before = Sample.of("self", 0)
    listener = Listener(on_trial=ended.append)
    job = prepare(**options, trials=trials)
    outcome = execute(job, outdir / "long", listener=listener)
    after = Sample.of("self", len(ended))
    planned = Counter((c, i) for c in job.config.classes for i in range(trials))
    heard = Counter((result.trial.class_id, result.trial.index) for result in ended)
    ends = Counter(result.stopped_at or job.config.steps for result in ended)
    stored = load_file(outcome.directory.embeddings_path)
    kept = Counter(zip(stored["class_ids"].tolist(), stored["trial_ids"].tolist(), strict=True))
    return {
        "trials": len(planned),
        "lost": sum((planned - heard).values()) + sum((planned - kept).values()),
        "duplicated": sum((heard - planned).values()) + sum((kept - planned).values()),
        "failed": outcome.summary["failed"],
        "trials_by_steps": dict(sorted(ends.items())),
        "before": asdict(before),
        "after": asdict(after),
    }


def soak(outdir: Path, trials: int, every: float) -> dict[str, Any]:
    """Watch a process do ``trials`` trials of every class, looking at it every so many seconds."""
    began = time.monotonic()
    command = [sys.executable, "-m", "bench.soak", "--inside", outdir, "--trials", trials]
    command += ["--options", json.dumps(OPTIONS)]
    samples: list[Sample] = []
    with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            time.sleep(every)
            finished = len(list(outdir.glob("long/*/trials/*.safetensors")))
            try:
                sample = Sample.of(process.pid, finished)
            except (OSError, KeyError):  # it has just ended
                break
            if finished:
                samples.append(sample)
        said = process.communicate()[0]
    if process.returncode:
        raise SystemExit(f"the run ended with {process.returncode}")
    return {
        **json.loads(said),
        **memory(samples, trials * _CLASSES),
        "most_threads": max(sample.threads for sample in samples),
        "most_descriptors": max(sample.descriptors for sample in samples),
        "seconds": round(time.monotonic() - began),
        "options": OPTIONS,
        "machine": {"cpu": cpu_model(), "omp_num_threads": os.environ.get("OMP_NUM_THREADS")},
        "finished_and_rss_mb": [
            (sample.finished, sample.rss_mb) for sample in samples[:: max(1, len(samples) // 40)]
        ],
    }


def memory(samples: list[Sample], trials: int) -> dict[str, float]:
    """The most memory in the warm-up and after it until the last trial, and how much more that is.

    What comes after the trials, scores and a picture, is no part of it.
    """
    early = max(s.rss_mb for s in samples if s.finished <= WARM_UP * trials)
    late = max(s.rss_mb for s in samples if WARM_UP * trials < s.finished < trials)
    return {"warm_up_mb": early, "peak_mb": late, "growth": round(late / early - 1, 4)}


def complaints(found: dict[str, Any]) -> list[str]:
    """What is wrong with what ``soak`` found, a sentence each."""
    before, after = found["before"], found["after"]
    unsound = [what for what in ("lost", "duplicated", "failed") if found[what]]
    wrong = [f"{found[what]} trials are {what}" for what in unsound]
    wrong += [
        f"{after[what]} {what} at the end and {before[what]} before"
        for what in ("threads", "descriptors")
        if after[what] > before[what]
    ]
    if found["growth"] >= GROWTH:
        wrong.append(
            f"memory grew by {found['growth']:.1%} after the first {WARM_UP:.0%} of the trials, "
            f"from {found['warm_up_mb']} to {found['peak_mb']} MB"
        )
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=167, help="of each of the twelve classes")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--options", type=json.loads, default=OPTIONS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(inside(options.inside, options.trials, options.options)))
        return
    with tempfile.TemporaryDirectory() as outdir:
        found = soak(Path(outdir), options.trials, every=1.0)
    print(json.dumps(found, indent=2))
    if wrong := complaints(found):
        raise SystemExit("; ".join(wrong))
    (RESULTS / "soak.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
