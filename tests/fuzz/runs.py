"""The files of a run directory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from amfast.classifiers.protocol import ClassifierSpec
from amfast.config import make_config
from amfast.evaluation.rank import rank_run
from amfast.experiments import laboratory
from amfast.optimize.engine import TrialResult
from amfast.optimize.slots import Slots
from amfast.optimize.trials import plan_trials
from amfast.plots import scatter
from amfast.report.command import reproduce_command
from amfast.report.data import read_run
from amfast.runs import RunDirectory, RunFacts, lock
from amfast.runs.embeddings_file import read_embeddings
from amfast.runs.imported import open_any_run
from amfast.runs.state_file import read_state
from amfast.runs.trial_file import read_trial, trial_path
from tests.fuzz.target import LABELS, SPEC, Target, file_target

_HALF = (0.5, 0.5, 0.5)
_JUDGE = ClassifierSpec("shapes", 64, _HALF, _HALF, LABELS, "11bb")
_STEPS = 3


def finished_run(root: Path) -> RunDirectory:
    """As ``amfast run`` leaves one, without the work."""
    config = make_config(classes=(0, 2), trials=2, steps=_STEPS, steps_per_latents=2, seed=7)
    facts = RunFacts.gather(SPEC, _JUDGE, torch.device("cpu"), "fp32")
    run = RunDirectory.create(root / "made", config, facts)
    trials = plan_trials(run.config.classes, run.config.trials, run.config.seed)
    stream = torch.Generator().manual_seed(0)
    for trial in trials:
        start = torch.randn(SPEC.embedding_dim, generator=stream)
        history = torch.rand(_STEPS, 3, generator=stream)
        run.write(TrialResult(trial, start, start + 1, history))
    run.keep(Slots.begin(trials, torch.randn(4, SPEC.embedding_dim, generator=stream), _STEPS))
    state = run.state_path().read_bytes()
    run.collect(trials)
    run.state_path().write_bytes(state)
    score = {"target_prob": 0.9, "accuracy": 1.0, "distance": 0.4, "ms_ssim": 0.3}
    score |= {"images": 10, "pairs": 5}
    ends = {"failed_at": None, "stopped_at": None, "score": score}
    classes = [
        {"class_id": i, "name": LABELS[i], "original": score, "best": 1}
        | {"trials": [{"trial": t, **ends} for t in range(2)]}
        for i in run.config.classes
    ]
    run.write_summary({"trials": 4, "failed": 0, "seconds_per_trial": 1.5, "classes": classes})
    measures = [
        {"name": name, "value": 0.4, "low": 0.3, "high": 0.5, "n": 9, "unit": "images"}
        | {"std": None, "seed": 0, "weights": None, "note": ""}
        for name in ("lpips", "fid")
    ]
    sets = {"sets": {"original": measures, "am": measures}, "gap_closed_percent": {}}
    about = {"class_id": 0, "name": "ring", "trial": 1, "why": "the only one"}
    evaluation = {
        "format": "amfast-evaluation",
        "format_version": 1,
        "against": "renderer",
        "images_per_class": 9,
        "classes": [{**about, **sets}],
        "overall": sets,
        "failed": [],
        "notes": ["a note"],
    }
    (run.path / "evaluation.json").write_text(json.dumps(evaluation))
    return run


def of_runs(root: Path) -> Iterator[Target]:
    made = finished_run(root)
    trial = plan_trials((0,), 1, 7)[0]
    facts, config = made.facts, made.config

    def of_run(name: str, file: str, read: Callable[[Path], object]) -> Target:
        """In a copy of the run."""
        sound = (made.path / file).read_bytes()
        target = file_target(root, name, f"run/{file}", sound, read)
        shutil.copytree(made.path, target.folder / "run", dirs_exist_ok=True)
        return target

    def open_run(path: Path) -> None:
        run = open_any_run(path.parent)
        assert isinstance(run, RunDirectory)
        reproduce_command(run.config, run.facts.class_names)
        RunDirectory.find(path.parent.parent, config, facts)
        RunDirectory.find(path.parent, config, facts)

    def read_collected(path: Path) -> None:
        file = read_embeddings(path, SPEC)
        rows = file.rows()
        file.select(range(len(rows)))
        # Whoever shows a class makes room for those before it.
        assert all(0 <= class_id <= 1_000_000 for class_id, _ in rows)

    def summary(path: Path) -> None:
        run = RunDirectory.open(path.parent)
        run.seconds_per_trial()
        rank_run(path.parent)
        run.best()

    yield of_run("run.json", "run.json", open_run)
    yield of_run("run.json of a report", "run.json", lambda path: read_run(path.parent))
    yield of_run("note in run.json", "run.json", lambda path: made_at(path).note("a note"))
    name = str(trial_path(Path(), 0, 0))
    yield of_run(
        "trial", name, lambda path: read_trial(path, trial, facts, config.method, config.steps)
    )
    yield of_run("under-way", "under-way.safetensors", lambda path: read_state(path, facts, config))
    yield of_run("embeddings", "embeddings.safetensors", read_collected)
    yield of_run("summary.json", "summary.json", summary)
    yield of_run("evaluation.json", "evaluation.json", lambda path: read_run(path.parent))
    yield of_run("evaluation.json of a plot", "evaluation.json", scatter._read)
    held = b'{"host": "here", "pid": 1, "since": "2026-01-01T00:00:00+00:00"}'
    yield file_target(root, "lock", "lock", held, lock._holder)
    kept = json.dumps({"key": {"seed": 0}, "evaluation": {"notes": []}}).encode()
    yield file_target(
        root, "measurement", "m.json", kept, lambda p: laboratory._kept(p, {"seed": 0})
    )

    def made_at(path: Path) -> RunDirectory:
        return RunDirectory(path.parent, config, facts)
