"""One run from its options to its finished directory. The command line only calls this."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from amfast.api import Result, Scores, check_method, own_rows, run_trials, score_trials
from amfast.classes import select_classes
from amfast.classifiers import ModuleClassifier, load_classifier
from amfast.config import RunConfig, make_config
from amfast.device import DTYPES, resolve_device, resolve_dtype
from amfast.errors import RunError, UsageError
from amfast.generators import Generator, load_generator
from amfast.images.picture import PictureRow, side_by_side
from amfast.metrics.embedding import EmbeddingScore, evaluation_latents, sample_images
from amfast.ops import on_fallback
from amfast.optimize.determinism import fix_cublas
from amfast.optimize.engine import Progress, TrialResult
from amfast.optimize.slots import Slots
from amfast.optimize.trials import Trial, plan_trials
from amfast.runs.directory import RunDirectory
from amfast.runs.facts import RunFacts
from amfast.runs.files import write_bytes
from amfast.weights.files import RANDOM

_SHOWN = 8  # images per embedding in the comparison picture
_ROWS = 60  # classes in it: beyond that a picture is too tall to open


@dataclass(frozen=True)
class Job:
    """A run ready to start: networks loaded, classes resolved, configuration checked."""

    generator: Generator
    classifier: ModuleClassifier
    config: RunConfig

    @property
    def facts(self) -> RunFacts:
        device = self.generator.class_embeddings.device
        return RunFacts.gather(self.generator.spec, self.classifier.spec, device, self.config.dtype)

    def label(self, class_id: int) -> str:
        return self.classifier.spec.labels[class_id]


@dataclass
class Listener:
    """What a caller may want to hear of while a run goes on; every part is optional."""

    on_nothing_to_resume: Callable[[Path], None] = lambda outdir: None
    on_start: Callable[[RunDirectory, int, int, list[Path]], None] = lambda *event: None
    on_going_on: Callable[[list[int]], None] = lambda steps: None
    on_progress: Callable[[Progress], None] = lambda progress: None
    on_trial: Callable[[TrialResult], None] = lambda result: None
    on_note: Callable[[str], None] = lambda note: None
    on_scoring: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Work:
    """What a run still has to do: its ``trials``, of which ``results`` are on disk already.

    ``stopped`` are those that were under way. ``results`` grows as trials are written. ``note``
    takes sentences that a user should know of, and keeps them.
    """

    directory: RunDirectory
    trials: Sequence[Trial]
    results: dict[Trial, TrialResult]
    stopped: Slots | None
    note: Callable[[str], None]


class Executor(Protocol):
    """Who does a run's trials and writes each that is missing.

    Returns the scores of all of them where it has them: where networks are, it is quickest.
    """

    def __call__(self, job: Job, work: Work, listener: Listener) -> Scores | None: ...


@dataclass(frozen=True)
class Outcome:
    """A finished run. ``seconds_per_trial`` is an earlier call's where this one had no work."""

    directory: RunDirectory
    result: Result = field(repr=False)
    seconds_per_trial: float | None
    summary: dict[str, Any] = field(repr=False)


def prepare(
    *,
    classes: str,
    generator: str = "embedded",
    weights: str | None = None,
    classifier: str = "embedded",
    device: str = "auto",
    dtype: str = "auto",
    **values: Any,
) -> Job:
    """Load what the run needs and check its options; ``auto`` is resolved here.

    ``values`` are the other fields of ``RunConfig``. Raises ``UsageError`` or ``WeightsError``.
    """
    checked = make_config(
        classes=(0,), generator=generator, weights=weights, classifier=classifier, device=device,
        dtype=dtype, **values,
    )  # fmt: skip
    target = resolve_device(checked.device)
    if checked.deterministic and target.type == "cuda":
        fix_cublas()
    precision = resolve_dtype(checked.dtype, target)
    (name,) = (key for key, value in DTYPES.items() if value == precision)
    loaded = load_job(checked.model_copy(update={"device": str(target), "dtype": name}))
    resolved = {
        "classes": select_classes(classes, loaded.classifier.spec.labels),
        # So that the run can be exported from any folder.
        "weights": _absolute(weights),
        "classifier_weights": _absolute(checked.classifier_weights),
    }
    config = loaded.config.model_copy(update=resolved)
    check_method(loaded.generator, loaded.classifier, config)
    return replace(loaded, config=config)


def load_job(config: RunConfig) -> Job:
    """The networks of a configuration whose device and dtype are no longer ``auto``.

    Raises ``UsageError`` or ``WeightsError``.
    """
    judge = load_classifier(
        config.classifier,
        weights=config.classifier_weights,
        device=config.device,
        dtype=config.dtype,
    )
    maker = load_generator(
        config.generator,
        weights=config.weights,
        device=config.device,
        dtype=config.dtype,
        truncation=config.truncation,
        truncation_stats=config.truncation_stats,
        eps=config.eps,
    )
    return Job(maker, judge, config)


def _absolute(weights: str | None) -> str | None:
    return weights if weights is None or weights == RANDOM else str(Path(weights).absolute())


def in_this_process(job: Job, work: Work, listener: Listener) -> None:
    """The usual executor."""
    for result in run_trials(
        job.generator,
        job.classifier,
        job.config,
        [trial for trial in work.trials if trial not in work.results],
        listener.on_progress,
        stopped=work.stopped,
        on_resample=work.directory.keep,
        on_note=work.note,
    ):
        work.directory.write(result)
        work.results[result.trial] = result
        listener.on_trial(result)


def execute(
    job: Job,
    outdir: Path,
    *,
    resume: bool = False,
    allow_drift: bool = False,
    listener: Listener | None = None,
    executor: Executor = in_this_process,
) -> Outcome:
    """Run the trials that are not on disk yet, score all of them, and write what a run holds.

    ``outdir`` is a folder of runs or, to resume one, a run directory. Every finished trial is on
    disk before the next one takes its slot, and the trials under way are before every resample.
    ``executor`` may have other processes do them (``amfast.cluster.Spread``). ``allow_drift`` goes
    on with a run directory of other versions, devices and the like, and records them. Raises
    ``RunError``, and ``UsageError`` for a drift without a directory named.
    """
    listener = listener or Listener()
    if allow_drift and not (resume and RunDirectory.is_run(outdir)):
        raise UsageError(
            "--allow-drift goes on with one run: add --resume, and name its directory by --outdir "
            f"(given: {outdir})"
        )
    directory = _open_directory(
        job, outdir, resume=resume, allow_drift=allow_drift, listener=listener
    )

    def note(text: str) -> None:
        directory.note(text)
        listener.on_note(text)

    with directory.lock(), on_fallback(note, strict=job.config.strict):
        if allow_drift:
            directory, changed = directory.drifted(job.config, job.facts)
            if changed:
                note(f"this run has drifted (--allow-drift): {'; '.join(map(str, changed))}")
        trials = plan_trials(job.config.classes, job.config.trials, job.config.seed)
        results, damaged = directory.finished(trials)
        wanted = [trial for trial in trials if trial not in results]
        stopped, lost = directory.stopped()
        listener.on_start(directory, len(trials), len(results), [*damaged, *lost])
        done = 0  # steps of trials under way
        if stopped and (steps := stopped.only(wanted).step.tolist()):
            listener.on_going_on(steps)
            done = sum(steps)
        if job.generator.spec.name != "embedded" and job.config.classifier == "embedded":
            note(
                f"classifier embedded knows twelve shapes, no class of {job.generator.spec.name}: "
                "it serves to try speed and plumbing; the paper's is --classifier alexnet"
            )
        started = time.monotonic()
        scores = executor(job, Work(directory, trials, results, stopped, note), listener)
        seconds = directory.seconds_per_trial()
        if wanted:
            whole = len(wanted) - done / job.config.steps
            seconds = (time.monotonic() - started) / whole
        directory.collect(trials)
        ordered = [results[trial] for trial in trials]
        if scores is None:
            listener.on_scoring()
            scores = score_trials(job.generator, job.classifier, job.config, ordered)
        found = Result(job.config, ordered, scores)
        summary = summarize(job, found, seconds)
        directory.write_summary(summary)
        if picture := comparison(job, found):
            write_bytes(directory.picture_path, picture)
    return Outcome(directory, found, seconds, summary)


def _open_directory(
    job: Job, outdir: Path, *, resume: bool, allow_drift: bool, listener: Listener
) -> RunDirectory:
    if resume:
        found = RunDirectory.find(outdir, job.config, job.facts, allow_drift=allow_drift)
        if found is not None:
            return found
    if RunDirectory.is_run(outdir):
        raise RunError(
            f"{outdir} is a run directory: add --resume to go on with it, "
            "or give the folder that new runs go into"
        )
    created = RunDirectory.create(outdir, job.config, job.facts)
    if resume:
        listener.on_nothing_to_resume(outdir)
    return created


def summarize(job: Job, result: Result, seconds_per_trial: float | None) -> dict[str, Any]:
    """``summary.json``: every class with its own embedding's score and each trial's."""
    best = result.best()

    def scored(score: EmbeddingScore | None) -> dict[str, float | int] | None:
        return score.to_json() if score is not None and score.finite else None

    return {
        "trials": len(result.trials),
        "failed": len(result.failed),
        "seconds_per_trial": seconds_per_trial,
        "classes": [
            {
                "class_id": class_id,
                "name": job.label(class_id),
                "original": scored(result.scores.original.get(class_id)),
                "best": best[class_id].trial.index if class_id in best else None,
                "trials": [
                    {
                        "trial": t.trial.index,
                        "failed_at": t.failed_at,
                        "stopped_at": t.stopped_at,
                        "score": scored(result.scores.trials.get(t.trial)),
                    }
                    for t in result.trials
                    if t.trial.class_id == class_id
                ],
            }
            for class_id in job.config.classes
        ],
    }


def comparison(job: Job, result: Result) -> bytes | None:
    """A PNG: each class's own embedding beside its best trial, on the same latents.

    Shows the first classes only where there are many; None where there is nothing to show.
    """
    generator, best, rows = job.generator, result.best(), own_rows(job.generator, job.classifier)
    device = generator.class_embeddings.device
    latents = evaluation_latents(_SHOWN, generator.spec.latent_dim, job.config.seed, device)

    def shown(embedding: Tensor | None) -> Tensor | None:
        return None if embedding is None else sample_images(generator, embedding, latents)

    table = []
    for class_id in job.config.classes[:_ROWS]:
        own = generator.class_embeddings[rows[class_id]] if class_id in rows else None
        found = best[class_id].embedding if class_id in best else None
        table.append(PictureRow(job.label(class_id), [shown(own), shown(found)]))
    if all(group is None for row in table for group in row.groups):
        return None
    return side_by_side(["class embedding as trained", "best trial"], table)
