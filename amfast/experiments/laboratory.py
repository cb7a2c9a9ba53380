"""Where an experiment's runs, other embeddings and measurements are made and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amfast.api import own_rows
from amfast.config import RunConfig
from amfast.errors import RunError, UsageError
from amfast.evaluation.compare import METRICS, load_needed
from amfast.evaluation.networks import Features, load_networks
from amfast.evaluation.session import evaluate_path, open_real
from amfast.experiments.measured import Measured
from amfast.generators.protocol import Generator
from amfast.runs.embeddings_file import EmbeddingsFile
from amfast.runs.files import read_bytes, write_json
from amfast.runs.session import Job, Listener, Outcome, execute, prepare
from amfast.text import parse_json


@dataclass(frozen=True)
class Options:
    """What an experiment is made with; the names are those of ``RunConfig`` and ``evaluate_path``.

    ``snapshots`` are weights of the generator at other moments of its training, ``classifiers``
    what the experiment of that name optimises for, ``discriminator_weights`` those of
    ``load_discriminator``.
    """

    generator: str
    classifier: str
    classes: str
    trials: int
    weights: str | None = None
    classifier_weights: str | None = None
    steps: int = 200
    latents: int = 20
    images_per_class: int = 1000
    pairs: int = 200
    against: str | None = None
    judge: str | None = None
    judge_weights: str | None = None
    features: Features = "auto"
    classifiers: tuple[str, ...] = ()
    snapshots: tuple[str, ...] = ()
    discriminator_weights: str | None = None
    seed: int = 0
    batch_embeddings: int = 64
    device: str = "auto"
    dtype: str = "auto"


@dataclass
class Reporter:
    """What a caller may want to hear of meanwhile."""

    on_stage: Callable[[str], None] = lambda text: None
    on_note: Callable[[str], None] = lambda note: None
    #: What follows one run of trials.
    follow: Callable[[RunConfig], AbstractContextManager[Listener]] = field(
        default=lambda config: nullcontext(Listener())
    )


class Laboratory:
    """One experiment's folder, and what is done in it.

    What is there already, of the same options, is not done again: runs go on where they stopped,
    and a measurement of the same embeddings is read back.
    """

    def __init__(self, folder: Path, options: Options, reporter: Reporter) -> None:
        self.folder, self.options, self.reporter = folder, options, reporter
        #: Measurements by name, in the order they were made.
        self.measured: dict[str, Measured] = {}
        #: Files to look at, by what they show.
        self.files: dict[str, str] = {}
        self._can_measure = False

    def job(self, **values: Any) -> Job:
        """A run of the experiment's options with ``values`` in place of some; nothing is begun."""
        wanted = asdict(self.options)
        names = RunConfig.model_fields.keys() & wanted.keys()
        return prepare(**{name: wanted[name] for name in names} | values)

    def optimise(self, name: str, *, new_classes: bool = False, **values: Any) -> Outcome:
        """A finished run under ``runs/name``: a new one, or the one that is there gone on with.

        Raises ``UsageError`` for classes that the generator lacks as trained, which most
        experiments compare with, unless ``new_classes``.
        """
        job = self.job(**values)
        own = own_rows(job.generator, job.classifier)
        lacking = [job.label(i) for i in job.config.classes if i not in own]
        if lacking and not new_classes:
            raise UsageError(
                f"{job.generator.spec.name} has no class {', '.join(lacking[:5])} as trained to "
                "compare with: leave it out, or see what amfast reproduce places makes of it"
            )
        if not self._can_measure:
            self._check_measuring(job)
        count = len(job.config.classes) * job.config.trials
        self.reporter.on_stage(f"{name}: {count} trials of {job.config.steps} steps")
        with self.reporter.follow(job.config) as listener:
            outcome = execute(job, self.folder / "runs" / name, resume=True, listener=listener)
        self.files[f"run {name}"] = str(outcome.directory.path)
        return outcome

    def _check_measuring(self, job: Job) -> None:
        """What a measurement will lack is better known before hours of trials than after them."""
        options, device = self.options, job.generator.class_embeddings.device
        names = {i: job.label(i) for i in job.config.classes}
        networks = load_networks(
            generator=options.generator,
            class_names=names,
            judge=options.judge,
            judge_weights=options.judge_weights,
            features=options.features,
            device=device,
        )
        load_needed(networks, METRICS)
        open_real(
            options.against,
            generator=options.generator,
            labels=lambda: networks.labels,
            classes=names,
            size=job.generator.spec.resolution,
            seed=options.seed,
            device=device,
        )
        self._can_measure = True

    def keep(
        self, name: str, generator: Generator, class_names: Mapping[int, str],
        embeddings: Mapping[int, Tensor],
    ) -> Path:  # fmt: skip
        """A file of one embedding ``[E]`` for each class, ``embeddings/name.safetensors``."""
        path = self.folder / "embeddings" / f"{name}.safetensors"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot write in {self.folder}: {error.strerror}") from None
        ids = sorted(embeddings)
        EmbeddingsFile(
            embeddings=torch.stack([embeddings[i].detach().float().cpu() for i in ids]),
            class_ids=torch.tensor(ids),
            trial_ids=torch.zeros(len(ids), dtype=torch.int64),
            class_names={i: class_names[i] for i in ids},
            generator=generator.spec.name,
            generator_fingerprint=generator.spec.fingerprint,
            method=name,
        ).write(path)
        return path

    def measure(self, name: str, embeddings: Path, **values: Any) -> Measured:
        """A run's best trials, or a file's embeddings, beside the classes as trained and real ones.

        ``values`` are arguments of ``evaluate_path``, in place of the options'. Kept as
        ``measured/name.json``.
        """
        asked = asdict(self.options)
        shared = ("generator", "weights", "against", "judge", "judge_weights", "features", "device",
                  "images_per_class", "pairs", "seed")  # fmt: skip
        arguments = {key: asked[key] for key in shared} | values
        is_run = embeddings.is_dir()
        if is_run:  # which names its own
            arguments["generator"] = arguments["weights"] = None
        file = embeddings / "embeddings.safetensors" if is_run else embeddings
        content = hashlib.sha256(read_bytes(file)).hexdigest()
        key = {"embeddings": content, **{k: v for k, v in arguments.items() if k != "device"}}
        path = self.folder / "measured" / f"{name}.json"
        found = _kept(path, key)
        if found is None:
            self.reporter.on_stage(f"{name}: measuring {arguments['images_per_class']} images each")
            done = evaluate_path(embeddings, **arguments)
            found = done.evaluation.to_json()
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise RunError(f"cannot write in {self.folder}: {error.strerror}") from None
            write_json(path, {"key": key, "evaluation": found})
        for note in found["notes"]:
            self.reporter.on_note(f"{name}: {note}")
        self.measured[name] = Measured(found)
        return self.measured[name]


def _kept(path: Path, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """A measurement as it was written for this key, None where there is no such one."""
    if not path.exists():
        return None
    try:
        stored = parse_json(read_bytes(path))
    except ValueError:
        return None
    sound = isinstance(stored, dict) and stored.get("key") == json.loads(json.dumps(key))
    return stored.get("evaluation") if sound else None
