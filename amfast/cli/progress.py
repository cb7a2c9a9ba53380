"""What a person sees of a run: a live bar, and a table at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from amfast.cli.console import cell, complain, printable, stderr, stdout
from amfast.config import RunConfig
from amfast.optimize.engine import Progress as Step
from amfast.optimize.engine import TrialResult
from amfast.runs.directory import RunDirectory
from amfast.runs.plan import RunPlan
from amfast.runs.session import Listener, Outcome

_LINE_EVERY = 20  # steps between lines where stderr is a file


class RunDisplay(Listener):
    """A ``Listener`` that shows a run on stderr: a live bar on a terminal, lines in a file.

    ``alone``: this process does all of it, in batches.
    """

    def __init__(self, config: RunConfig, *, quiet: bool, alone: bool = True) -> None:
        super().__init__(
            self._nothing_to_resume,
            self._start,
            self._going_on,
            self._progress,
            self._trial,
            self._note,
            self._scoring,
        )
        self.run_dir: Path | None = None
        self.finished = 0
        self._config, self._quiet, self._alone, self._wanted = config, quiet, alone, 0
        self._bar = Progress(
            TextColumn("{task.fields[trials]} trials"),
            BarColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("{task.fields[prob]}"),
            console=stderr,
            disable=quiet or not stderr.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, trials="0", rate="", prob="")
        self._done_steps = 0  # of finished trials
        self._lines = 0

    def __enter__(self) -> RunDisplay:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._bar.stop()

    def _say(self, text: str) -> None:
        if not self._quiet:
            stderr.print(printable(text), highlight=False, markup=False, soft_wrap=True)

    def _nothing_to_resume(self, outdir: Path) -> None:
        self._say(f"no run of this configuration in {outdir}: starting a new one")

    def _start(
        self, directory: RunDirectory, total: int, finished: int, damaged: list[Path]
    ) -> None:
        self.run_dir, self.finished = directory.path, finished
        self._wanted = total - finished
        self._say(f"run directory: {directory.path}")
        if finished:
            self._say(f"{finished} of {total} trials are finished already and are kept")
        for path in damaged:
            complain(f"{path} is damaged and will be done again")
        if self._alone and self._config.batch_embeddings > total:
            wanted = self._config.batch_embeddings
            self._say(f"a batch holds {wanted} embeddings and there are {total} trials: one batch")
        self._bar.update(
            self._task,
            total=self._wanted * self._config.steps,
            trials=f"{finished}/{total}",
        )

    def _going_on(self, steps: list[int]) -> None:
        self._say(f"{len(steps)} trials go on from step {_span(min(steps), max(steps))}")

    def _progress(self, now: Step) -> None:
        done = self._done_steps + now.done
        speed = self._bar.tasks[0].speed
        self._bar.update(
            self._task,
            completed=done,
            rate="" if not speed else f"{speed / now.trials:.2f} steps/s",
            prob=f"target probability {now.target_prob:.3f}",
        )
        lines, before = now.done // (now.trials * _LINE_EVERY), self._lines
        self._lines = lines
        if self._bar.disable and (0 < lines != before or now.first == now.steps):
            share = done / (self._wanted * now.steps)
            self._say(
                f"step {_span(now.first, now.last)}/{now.steps} of {now.trials} trials "
                f"({share:.0%} of the run), mean target probability {now.target_prob:.3f}"
            )

    def _note(self, text: str) -> None:
        self._say(text)

    def _trial(self, result: TrialResult) -> None:
        self.finished += 1
        self._done_steps += self._config.steps
        total = self._config.trials * len(self._config.classes)
        self._bar.update(self._task, trials=f"{self.finished}/{total}")

    def _scoring(self) -> None:
        self._say("scoring every trial on fresh latents")

    def reporting(self) -> None:
        self._say("writing the report")


def _span(first: int, last: int) -> str:
    return str(last) if first == last else f"{first}-{last}"


def show_summary(outcome: Outcome, report: Path | None) -> None:
    """A table per class: what each score was and is, original -> best trial; then the files."""
    title = "class embedding as trained -> best trial, on fresh latents"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("class", overflow="fold")
    for heading in (
        "target\nprobability",
        "pairwise\ndistance",
        "MS-SSIM",
        "best\ntrial",
        "failed",
    ):
        table.add_column(
            heading, justify="right", no_wrap=True
        )  # headings in two lines: 80 columns
    for row in outcome.summary["classes"]:
        scores = {t["trial"]: t["score"] for t in row["trials"]}
        pair = row["original"], scores.get(row["best"])
        table.add_row(
            cell(f"{row['class_id']} {row['name']}"),
            _arrow("target_prob", *pair),
            _arrow("distance", *pair),
            _arrow("ms_ssim", *pair),
            "-" if row["best"] is None else str(row["best"]),
            str(sum(t["failed_at"] is not None for t in row["trials"])),
        )
    stdout.print(table)
    directory = outcome.directory
    if outcome.seconds_per_trial is not None:
        stdout.print(f"{outcome.seconds_per_trial:.2f} seconds per trial", highlight=False)
    for what, path in (
        *([("open", report)] if report else []),
        ("look at", directory.picture_path),
        ("figures", directory.summary_path),
        ("embeddings", directory.embeddings_path),
    ):
        line = printable(f"{what}: {path}")
        stdout.print(line, highlight=False, markup=False, soft_wrap=True)


def _arrow(key: str, before: dict[str, Any] | None, after: dict[str, Any] | None) -> str:
    shown = ["-" if score is None else f"{score[key]:.3f}" for score in (before, after)]
    return " -> ".join(shown)


def show_plan(plan: RunPlan, config: RunConfig) -> None:
    minutes = plan.seconds / 60
    for line in (
        f"{plan.trials} trials of {plan.steps_per_trial} steps in {plan.batches} batches, "
        f"on {config.device} in {config.dtype}",
        f"{plan.images_per_pass} images in a pass, {plan.passes_per_step} passes in a step",
        f"about {plan.bytes_per_pass / 1e6:.0f} MB kept for the backward of a pass",
        f"about {minutes:.1f} minutes, measured over a few steps",
    ):
        stdout.print(line, highlight=False)
