"""The command that does a run again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from amfast.config import RunConfig, make_config

#: Options whose names are not their fields'.
_NAMED = {"diversity_weight": "lambda"}


def reproduce_command(config: RunConfig, class_names: Mapping[int, str]) -> str:
    """``amfast run`` with the options that differ from its defaults, quoted for a shell.

    ``class_names`` are all of the classifier's: a run of all of them says ``all``.
    """
    if config.classes == tuple(sorted(class_names)):
        classes = "all"
    else:
        classes = ",".join(_ranges(config.classes))
    words = ["amfast", "run", "--classes", classes]
    given = config.model_dump(exclude={"classes"})
    implied = {name: getattr(config, name) for name in ("method", "profile", "deterministic")}
    usual = make_config(classes=config.classes, **implied).model_dump() | {
        "method": "am-l",
        "profile": "paper",
        "deterministic": False,
    }
    for name, value in given.items():
        if value == usual[name]:
            continue
        option = f"--{_NAMED.get(name, name).replace('_', '-')}"
        words += [option] if value is True else [option, str(value)]
    return shlex.join(words)


def _ranges(ids: Sequence[int]) -> list[str]:
    """``0-3`` for runs of three or more, single ids for the others, in the order given."""
    runs: list[list[int]] = []
    for class_id in ids:
        if runs and class_id == runs[-1][-1] + 1:
            runs[-1].append(class_id)
        else:
            runs.append([class_id])
    return [
        word
        for run in runs
        for word in ([f"{run[0]}-{run[-1]}"] if len(run) > 2 else map(str, run))
    ]
