"""How the trials of a run went, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from amfast.errors import RunError
from amfast.optimize.trials import plan_trials
from amfast.plots.canvas import COLOURS, new_figure, shown
from amfast.plots.choice import pick_class
from amfast.runs.directory import RunDirectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Columns of a trial's history.
_COLUMNS = (
    "mean target log-probability",
    "mean target probability",
    "distance of a step's images",
)
#: So many trials are told apart and named; of more, one line is like another.
_NAMED = 8


def draw_trajectories(run: Path, class_name: str | None) -> Figure:
    """The history of every finished trial, a line for each: the target's mean log-probability and
    probability, and how far a step's images are from each other.

    Of one class, where ``class_name`` says which, or of all. Raises ``UsageError`` for a class that
    is not the run's, and ``RunError`` for a directory that is no run or has no finished trial.
    """
    directory = RunDirectory.open(run)
    config, names = directory.config, directory.facts.class_names
    trials = plan_trials(config.classes, config.trials, config.seed)
    if class_name is not None:
        class_id = pick_class(class_name, {i: names[i] for i in config.classes})
        trials = [trial for trial in trials if trial.class_id == class_id]
    finished, _ = directory.finished(trials)
    if not finished:
        raise RunError(f"{run} has no finished trial to draw: resume it")
    few = len(finished) <= _NAMED
    looks = {"lw": 1.2} if few else {"lw": 0.7, "color": COLOURS["am"], "alpha": 0.4}
    figure, axes = new_figure(1, len(_COLUMNS), width=13 if few else 11, height=3.2)
    for column, axis in enumerate(axes[0]):
        for trial, result in finished.items():
            label = f"{shown(names[trial.class_id])}, trial {trial.index}"
            axis.plot(result.history[:, column].numpy(), label=label, **looks)
        axis.set_xlabel("step")
        axis.set_ylabel(_COLUMNS[column])
    if few:
        figure.legend(handles=axes[0][0].get_lines(), loc="outside right upper")
    return figure
