"""An experiment from its name to its result."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from amfast.errors import RunError, UsageError
from amfast.evaluation.compare import METRICS
from amfast.evaluation.evaluate import check_options
from amfast.experiments.laboratory import Laboratory, Options, Reporter
from amfast.experiments.measured import Finding
from amfast.experiments.recipes.classifiers import classifiers
from amfast.experiments.recipes.collapse import collapse
from amfast.experiments.recipes.diversity import diversity
from amfast.experiments.recipes.explicit_diversity import explicit_diversity
from amfast.experiments.recipes.finetune import finetune
from amfast.experiments.recipes.human_study import human_study
from amfast.experiments.recipes.interpolate import interpolate
from amfast.experiments.recipes.noise import noise
from amfast.experiments.recipes.places import places
from amfast.experiments.recipes.snapshots import snapshots
from amfast.runs.files import write_json
from amfast.runs.lock import locked
from amfast.runs.numbered import slug

POOR = "star,heart,crescent,hourglass"


@dataclass(frozen=True)
class Experiment:
    """``embedded`` and ``published`` are its options on the embedded pair and on real models."""

    name: str
    source: str
    question: str
    recipe: Callable[[Laboratory], list[Finding]]
    embedded: Options
    published: Options


def _on(
    embedded_classes: str = POOR,
    published_classes: str = "imagenet-50",
    *,
    trials: int,
    generator: str = "biggan-256",
    classifier: tuple[str, str] = ("embedded", "alexnet"),
) -> tuple[Options, Options]:
    mine, theirs = classifier
    return (
        Options("embedded", mine, embedded_classes, trials),
        Options(generator, theirs, published_classes, 5),
    )


_ALL = (
    Experiment(
        "collapse",
        "section 3.1",
        "Does AM-L repair a class that has collapsed?",
        collapse,
        *_on("hourglass", "904", trials=5, generator="biggan-128"),
    ),
    Experiment(
        "places",
        "section 3.2",
        "Can classes of another data set be found in the space of embeddings?",
        places,
        *_on("all", "places-16", trials=2, classifier=("embedded-unseen", "resnet18-places365")),
    ),
    Experiment(
        "diversity",
        "section 3.3, Fig. 7",
        "Do AM-S, AM-L and BigGAN+AM raise diversity, and at what cost in realism?",
        diversity,
        *_on(trials=3),
    ),
    Experiment(
        "noise",
        "section 3.4",
        "Would noise on the embedding do as well?",
        noise,
        *_on(trials=2),
    ),
    Experiment(
        "finetune",
        "section 3.4",
        "Would finetuning the embedding with the original GAN loss do as well?",
        finetune,
        *_on(trials=2, generator="biggan-128"),
    ),
    Experiment(
        "explicit-diversity",
        "section 3.5",
        "Does an explicit term of diversity help?",
        explicit_diversity,
        *_on("star,hourglass", trials=1),
    ),
    Experiment(
        "human-study",
        "section 3.6",
        "Do people see the difference?",
        human_study,
        *_on(trials=2),
    ),
    Experiment(
        "resolution",
        "section 3.7",
        "Does it work at another resolution?",
        diversity,
        *_on(trials=2, generator="biggan-128"),
    ),
    Experiment(
        "snapshots",
        "section 3.8, Fig. 8",
        "Does it work at every moment of the generator's training?",
        snapshots,
        *_on(trials=1, generator="biggan-128"),
    ),
    Experiment(
        "classifiers",
        "Table S2",
        "How much does the classifier matter?",
        classifiers,
        *_on(trials=1),
    ),
    Experiment(
        "interpolate",
        "Fig. 4",
        "Do images change gradually between latents and between embeddings?",
        interpolate,
        *_on(trials=2),
    ),
)

#: Every experiment by the name that ``amfast reproduce`` knows it by.
EXPERIMENTS = {experiment.name: experiment for experiment in _ALL}


@dataclass(frozen=True)
class Reproduction:
    """What came of an experiment. ``table`` has a row of measures for each set of images."""

    experiment: Experiment
    options: Options
    findings: list[Finding]
    table: dict[str, dict[str, float]]
    files: dict[str, str]
    seconds: float
    folder: Path

    def to_json(self) -> dict[str, Any]:
        """``experiment.json``."""
        return {
            "format": "amfast-experiment",
            "format_version": 1,
            "experiment": self.experiment.name,
            "source": self.experiment.source,
            "question": self.experiment.question,
            "options": asdict(self.options),
            "findings": [asdict(finding) for finding in self.findings],
            "table": self.table,
            "files": self.files,
            "seconds": self.seconds,
        }


def reproduce(
    name: str,
    outdir: str | Path = "experiments",
    *,
    reporter: Reporter | None = None,
    generator: str = "embedded",
    **values: Any,
) -> Reproduction:
    """Make one of the paper's experiments, in a folder of its own in ``outdir``.

    ``values`` are fields of ``Options`` to be used in place of the experiment's own, None for its
    own. An experiment that was stopped goes on where it was, and one that is there already is only
    read. Writes ``experiment.json``. Raises ``UsageError`` for an unknown name or option, and as
    ``amfast.optimize`` and ``amfast.evaluate`` do.
    """
    if name not in EXPERIMENTS:
        raise UsageError(f"no experiment is called {name!r}; there are {', '.join(EXPERIMENTS)}")
    experiment = EXPERIMENTS[name]
    own = experiment.embedded if generator == "embedded" else experiment.published
    given = {key: value for key, value in values.items() if value is not None}
    if unknown := given.keys() - asdict(own).keys():
        raise UsageError(f"reproduce has no option {', '.join(sorted(unknown))}")
    options = replace(own, generator=generator, **given)
    shown = slug(generator)
    if options.weights is not None:
        shown += f"-{slug(options.weights)}"
    check_options(METRICS, options.images_per_class, options.pairs, options.seed)
    folder = Path(outdir) / f"{name}-{shown}-s{options.seed}"
    made = [path for path in (folder, folder.parent) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot write in {folder}: {error.strerror}") from None
    started = time.monotonic()
    with locked(folder / "lock"):
        lab = Laboratory(folder, options, reporter or Reporter())
        try:
            findings = experiment.recipe(lab)
        except BaseException:
            _leave_nothing(made, folder)
            raise
        found = Reproduction(
            experiment,
            options,
            findings,
            _table(lab),
            lab.files,
            time.monotonic() - started,
            folder,
        )
        write_json(folder / "experiment.json", found.to_json())
    return found


def _leave_nothing(made: list[Path], folder: Path) -> None:
    """Remove the folders that this call made, where nothing came to be in them but the lock."""
    if folder in made and [path.name for path in folder.iterdir()] == ["lock"]:
        with suppress(OSError):  # something else is in one by now
            (folder / "lock").unlink()
            for path in made:
                path.rmdir()


def _table(lab: Laboratory) -> dict[str, dict[str, float]]:
    """The sets that all variants share once, then every variant's own."""
    table: dict[str, Mapping[str, float]] = {}
    for name, measured in lab.measured.items():
        for of, title in (
            ("real", "real"),
            ("original", "as trained"),
            ("am", name),
            ("mixed", f"{name}, mixed"),
        ):
            row = measured.row(of)
            if row and table.get(title) not in (None, row):
                title = f"{title} ({name})"
            if row:
                table[title] = row
    return {title: dict(row) for title, row in table.items()}
