"""``amfast report``: a run directory as one HTML file."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amfast.errors import RunError
from amfast.generators import load_generator
from amfast.generators.protocol import Generator
from amfast.pages import Page
from amfast.report.command import reproduce_command
from amfast.report.data import ClassData, RunData, TrialData, read_run
from amfast.report.figures import curve, evaluation_chart, map_chart, trajectory_chart, trials_chart
from amfast.report.licences import model_licences
from amfast.report.pictures import Pictures, Strips, draw_pictures
from amfast.report.plan import (
    EMBEDDING_FRAMES,
    EMBEDDING_IMAGES,
    LATENT_FRAMES,
    STEPS,
    PicturePlan,
    plan_pictures,
)
from amfast.report.words import (
    evaluation_findings,
    evaluation_table,
    findings,
    headline,
    percent,
    relative_gain,
)
from amfast.runs.files import reason, refuse_unwritable, write_bytes
from amfast.runs.lock import locked
from amfast.text import printable

_PAGE = Page("amfast.report", "report.html", "report.css", "report.js")
_NO_STRIPS = Strips()
#: Of all trials together: a page of thousands keeps few of each.
_CURVE_POINTS, _FEWEST, _MOST = 40_000, 10, 60


@dataclass(frozen=True)
class Report:
    """``path`` is the file that was written, of so many ``bytes``; ``left_out`` what it lacks."""

    path: Path
    bytes: int
    left_out: str

    def to_json(self) -> dict[str, str | int]:
        return {"report": str(self.path), "bytes": self.bytes, "left_out": self.left_out}


def write_report(
    run: str | Path,
    *,
    out: str | Path | None = None,
    generator: Generator | None = None,
    weights: str | Path | None = None,
    device: str = "auto",
) -> Report:
    """Write the report of a finished run: one page that needs no network.

    It becomes ``report/index.html`` in the run directory, which is locked meanwhile, or
    ``index.html`` in the folder ``out``, in place of an earlier one. ``generator`` is the run's, if
    it is loaded already; otherwise it is loaded as ``run.json`` names it, from ``weights`` where
    that is given.

    Raises ``RunError`` for what is no finished run or is damaged, for imported embeddings, for
    another generator than the run's and for a folder that cannot be written, and what
    ``load_generator`` raises.
    """
    source = Path(run)
    data = read_run(source)
    maker = generator or load_generator(
        data.config.generator,
        weights=weights or data.config.weights,
        device=device,
        truncation=data.config.truncation,
        truncation_stats=data.config.truncation_stats,
        eps=data.config.eps,
    )
    wanted = data.facts.generator["fingerprint"]
    if maker.spec.fingerprint != wanted:
        raise RunError(
            f"{source} was made with a generator of fingerprint {wanted}, and this one has "
            f"{maker.spec.fingerprint}: give the weights that the run was made with"
        )
    with locked(source / "lock") if out is None else nullcontext():
        folder = source / "report" if out is None else Path(out)
        made = _make(folder)
        try:
            path = folder / "index.html"
            refuse_unwritable(path)
            plan = plan_pictures(len(data.trials), len(data.classes), maker.spec.resolution)
            page = render_report(data, maker, plan).encode()
            write_bytes(path, page)
        except BaseException:
            if made:
                with suppress(OSError):  # something else is in it by now
                    folder.rmdir()
            raise
    return Report(path, len(page), plan.left_out)


def report_if_possible(
    run: Path, generator: Generator, *, on_failure: Callable[[str], None]
) -> Report | None:
    """``write_report`` at the end of a run, which is finished and kept whatever becomes of it.

    None where it could not be written; ``on_failure`` is then told why.
    """
    try:
        return write_report(run, generator=generator)
    except Exception as error:  # whatever it is, hours of work are not to end in it
        on_failure(
            f"the run is finished and kept, but its report was not written: {error}; "
            f"amfast report {shlex.quote(str(run))} tries again"
        )
        return None


def _make(folder: Path) -> bool:
    """Make ``folder``; whether it was missing."""
    missing = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise RunError(f"cannot write into {folder}: it is a file, not a folder") from None
    except OSError as error:
        raise RunError(f"cannot make {folder}: {reason(error)}") from None
    return missing


def render_report(run: RunData, generator: Generator, plan: PicturePlan) -> str:
    """The page of a run of this ``generator``, with the pictures of ``plan``."""
    pictures = draw_pictures(generator, run, plan)
    embedding_map = map_chart(generator, run)
    notes = [*run.notes, *([plan.left_out] if plan.left_out else [])]
    if pictures.not_finite:
        notes.append(f"{len(pictures.not_finite)} trials give images that are not finite")
    evaluation = run.evaluation
    said = findings(run) + ([] if evaluation is None else evaluation_findings(evaluation))
    return _PAGE.render(
        data=_script_data(run, pictures, plan),
        run=run,
        run_name=printable(run.path.resolve().name),
        headline=headline(run),
        findings=said,
        notes=notes,
        evaluation=evaluation,
        evaluated=None if evaluation is None else evaluation_table(evaluation),
        trials_chart=trials_chart(run),
        evaluation_chart=None if evaluation is None else evaluation_chart(evaluation),
        log_prob_chart=trajectory_chart(run, 0, "target log-probability, nats"),
        distance_chart=trajectory_chart(run, 2, "pairwise distance"),
        map_chart=embedding_map,
        pictures=pictures,
        count=plan.count,
        side=plan.side,
        no_strips=_NO_STRIPS,
        command=reproduce_command(run.config, run.facts.class_names),
        evaluate_command=f"amfast evaluate {printable(shlex.quote(str(run.path)))}",
        licences=model_licences(run.config),
        gain_share=_gain_share,
        class_gain=relative_gain,
        percent=percent,
        printable=printable,
    )


def _gain_share(of_class: ClassData, trial: TrialData) -> float | None:
    """A trial's gain as a share of the original's pairwise distance."""
    if trial.gain is None or of_class.original is None or of_class.original.distance <= 0:
        return None
    return trial.gain / of_class.original.distance


def _script_data(run: RunData, pictures: Pictures, plan: PicturePlan) -> dict[str, Any]:
    """What the large view shows, by the numbers of classes and trials."""
    points = max(_FEWEST, min(_MOST, _CURVE_POINTS // max(1, len(run.trials))))
    return {
        "latentFrames": LATENT_FRAMES,
        "latentSteps": STEPS,
        "embeddingFrames": EMBEDDING_FRAMES,
        "embeddingImages": EMBEDDING_IMAGES,
        "steps": run.config.steps,
        "classes": [
            {
                "name": of_class.name,
                "hasOriginal": of_class.original is not None,
                "latents": pictures.originals.get(of_class.number, _NO_STRIPS).latents,
            }
            for of_class in run.classes
        ],
        "trials": [
            {
                "class": of_class.number,
                "index": trial.index,
                "latents": pictures.trials.get(trial.number, _NO_STRIPS).latents,
                "embeddings": pictures.trials.get(trial.number, _NO_STRIPS).embeddings,
                "logProb": curve(trial.history, 0, points),
                "distance": curve(trial.history, 2, points),
            }
            for of_class in run.classes
            for trial in of_class.trials
        ],
    }
