"""The directory of one run: where its files are, and whether it is the run that was asked for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from amfast.config import RunConfig
from amfast.errors import RunError
from amfast.optimize.engine import TrialResult
from amfast.optimize.slots import Slots, united
from amfast.optimize.trials import Trial
from amfast.runs.drift import Change, changes, refusal
from amfast.runs.embeddings_file import write_embeddings
from amfast.runs.facts import ClassifierFacts, GeneratorFacts, RunFacts
from amfast.runs.files import commit_bytes, read_bytes, read_json, reason, write_json
from amfast.runs.lock import locked
from amfast.runs.numbered import create_numbered, numbered, slug
from amfast.runs.state_file import read_state, write_state
from amfast.runs.trial_file import read_trial, trial_path, write_trial
from amfast.text import parse_json

STATE_FILES = "under-way*.safetensors"


class _RunFile(BaseModel):
    """``run.json``."""

    format: Literal["amfast-run"] = "amfast-run"
    format_version: Literal[1] = 1
    config: RunConfig
    generator: GeneratorFacts
    classifier: ClassifierFacts
    class_names: dict[int, str]
    versions: dict[str, str]
    device: dict[str, str]
    created: str
    notes: list[str] = []
    drift: list[dict[str, Any]] = []


@dataclass(frozen=True)
class RunDirectory:
    """One run on disk (docs/formats.md), with the configuration and facts of its ``run.json``."""

    path: Path
    config: RunConfig
    facts: RunFacts

    @staticmethod
    def create(outdir: Path, config: RunConfig, facts: RunFacts) -> RunDirectory:
        """A new numbered directory in ``outdir``, itself made where it is missing.

        It appears under its name with ``run.json`` already in it. Raises ``RunError`` where it
        cannot be made, and leaves nothing of it behind.
        """
        name = f"{slug(facts.generator['name'])}-{config.method}-s{config.seed}"
        created = datetime.now(timezone.utc).isoformat(timespec="seconds")
        content = _RunFile(config=config, created=created, **asdict(facts))

        def fill(claim: Path) -> None:
            (claim / "trials").mkdir()
            write_json(claim / "run.json", content.model_dump(mode="json"))

        return RunDirectory(create_numbered(outdir, name, fill), config, facts)

    @staticmethod
    def open(path: Path) -> RunDirectory:
        """The run whose ``run.json`` is in ``path``; ``RunError`` where that is not one."""
        file = path / "run.json"
        try:
            run = _RunFile.model_validate_json(read_bytes(file))
        except ValidationError as error:
            problem = error.errors()[0]
            if problem["loc"] == ("config",) and problem["input"] is None:
                raise RunError(
                    f"{path} holds imported embeddings: no trial was optimised in it, so there is "
                    "none to go on with; start a run of its own"
                ) from None
            where = ".".join(map(str, problem["loc"])) or "the file"
            raise RunError(
                f"{file} is damaged or of another version of amfast: {where}: {problem['msg']}"
            ) from None
        facts = RunFacts(run.generator, run.classifier, run.class_names, run.versions, run.device)
        return RunDirectory(path, run.config, facts)

    @staticmethod
    def is_run(path: Path) -> bool:
        """Whether ``path`` is one run, rather than a folder of runs or nothing yet.

        Raises ``RunError`` where that cannot be seen.
        """
        try:
            return (path / "run.json").exists()
        except OSError as error:
            raise RunError(f"cannot read {path}: {reason(error)}") from None

    @staticmethod
    def find(
        path: Path, config: RunConfig, facts: RunFacts, *, allow_drift: bool = False
    ) -> RunDirectory | None:
        """The run to resume.

        ``path`` is a run directory, which must be of this configuration and these facts
        (``RunError`` naming what differs, or a damaged ``run.json``), or a folder of runs, of
        which the newest such run is taken and damaged ones are passed over; None without one.
        ``allow_drift`` takes a run directory of other versions, devices and the like
        (``amfast.runs.drift``) as it is, for ``drifted``.
        """
        if RunDirectory.is_run(path):
            run = RunDirectory.open(path)
            if said := refusal(_differences(run, config, facts), allow_drift=allow_drift):
                raise RunError(f"{path} is another run: {said}")
            return run
        try:
            runs = sorted(numbered(path), reverse=True)
        except OSError as error:
            raise RunError(f"cannot read {path}: {reason(error)}") from None
        for _, directory in runs:
            try:
                run = RunDirectory.open(directory)
            except RunError:
                continue
            if not _differences(run, config, facts):
                return run
        return None

    def drifted(self, config: RunConfig, facts: RunFacts) -> tuple[RunDirectory, list[Change]]:
        """The run as one of this configuration and these facts, and what changed by that.

        ``run.json`` holds them from now on, and in ``drift`` what was before. Trials under way
        begin anew where the precision changed: Adam's moments and fp16's loss scale are of the
        other. To be called under the lock. Raises ``RunError`` for a run that cannot drift so far.
        """
        file = self.path / "run.json"
        stored = RunDirectory.open(self.path)
        found = _differences(stored, config, facts)
        if said := refusal(found, allow_drift=True):
            raise RunError(f"{self.path} is another run: {said}")
        if not found:
            return stored, []
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        run = json.loads(read_bytes(file))
        entry = {"at": now, "changes": [change.to_json() for change in found]}
        run |= {"config": config.model_dump(mode="json"), **asdict(facts)}
        write_json(file, {**run, "drift": [*run.get("drift", []), entry]})
        drifted = RunDirectory(self.path, config, facts)
        if any(change.field == "device.dtype" for change in found):
            for path in self.path.glob(STATE_FILES):
                path.unlink()
        return drifted, found

    @property
    def embeddings_path(self) -> Path:
        return self.path / "embeddings.safetensors"

    def state_path(self, shard: str = "") -> Path:
        """Where the trials under way are kept: of the whole run, or of one of its shards."""
        return self.path / STATE_FILES.replace("*", f"-{shard}" if shard else "")

    @property
    def summary_path(self) -> Path:
        return self.path / "summary.json"

    @property
    def picture_path(self) -> Path:
        return self.path / "comparison.png"

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes out; ``RunError`` naming the host and process that is in already."""
        return locked(self.path / "lock")

    def finished(self, trials: Iterable[Trial]) -> tuple[dict[Trial, TrialResult], list[Path]]:
        """Those of ``trials`` that are on disk, and the files that are there but unusable."""
        results, damaged = {}, []
        for trial in trials:
            path = trial_path(self.path, trial.class_id, trial.index)
            if path.exists():
                try:
                    results[trial] = self._read(trial)
                except RunError:
                    damaged.append(path)
        return results, damaged

    def write(self, result: TrialResult) -> None:
        """Keep a finished trial. Raises ``RunError`` where it cannot be written."""
        path = trial_path(self.path, result.trial.class_id, result.trial.index)
        write_trial(path, result, self.facts, self.config.method)

    def commit(self, result: TrialResult) -> None:
        """The same where other processes may do so too: whose file comes first, it stays."""
        path = trial_path(self.path, result.trial.class_id, result.trial.index)
        write_trial(path, result, self.facts, self.config.method, commit_bytes)

    def refuse_other_facts(self, facts: RunFacts) -> None:
        """``RunError``, naming what differs, where a process would not give this run's bytes."""
        if differences := _differences(self, self.config, facts):
            raise RunError(
                f"this process cannot help with {self.path}: {'; '.join(map(str, differences))}"
            )

    def note(self, note: str) -> None:
        """Add a sentence to the ``notes`` of ``run.json``; ``RunError`` where that cannot be."""
        file = self.path / "run.json"
        run = read_json(file)
        try:
            notes = [*run.get("notes", []), note]
        except (TypeError, AttributeError) as error:
            raise RunError(f"{file} is damaged: {error!r}") from None
        write_json(file, {**run, "notes": notes})

    def keep(self, state: Slots, shard: str = "") -> None:
        """Keep the trials under way as they stand, of the whole run or of one of its shards.

        Raises ``RunError`` where that cannot be.
        """
        write_state(self.state_path(shard), state, self.facts, self.config)

    def stopped(self, shard: str | None = None) -> tuple[Slots | None, list[Path]]:
        """The trials under way when a run stopped, and the files of such that are unusable.

        Those that one shard's process kept, or everybody's.
        """
        paths = [self.state_path(shard)] if shard else sorted(self.path.glob(STATE_FILES))
        states, damaged = [], []
        for path in paths:
            if path.exists():
                try:
                    states.append(read_state(path, self.facts, self.config))
                except RunError:
                    damaged.append(path)
        return (united(states) if states else None), damaged

    def share_out(self, state: Slots, shards: Mapping[str, Iterable[Trial]]) -> None:
        """Keep the trials under way shard by shard, and in no other file."""
        paths = {self.state_path(name) for name in shards}
        for name, trials in shards.items():
            if (part := state.only(trials)).trials:
                self.keep(part, name)
        for path in set(self.path.glob(STATE_FILES)) - paths:
            path.unlink()

    def collect(self, trials: Iterable[Trial]) -> Path:
        """Gather the embeddings of ``trials``, failed ones left out, in ``embeddings_path``.

        The state files go, no trial being under way any more, and what killed processes left half
        written. Raises ``RunError`` if one of the trials is missing or damaged.
        """
        results = [self._read(trial) for trial in trials]
        write_embeddings(self.embeddings_path, results, self.facts, self.config.method)
        for left in (*self.path.glob(STATE_FILES), *self.path.glob("trials/.*.tmp")):
            left.unlink(missing_ok=True)
        return self.embeddings_path

    def seconds_per_trial(self) -> float | None:
        """What an earlier call measured; None where none came to its end."""
        try:
            found = parse_json(self.summary_path.read_bytes())["seconds_per_trial"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return float(found) if isinstance(found, int | float) else None

    def best(self) -> dict[int, int]:
        """Class id -> the index of its best trial, as ``summary.json`` has it.

        Classes of which every trial failed have none. Raises ``RunError`` where the file is missing
        or damaged.
        """
        classes = self.summary()["classes"]
        try:
            return {int(c["class_id"]): int(c["best"]) for c in classes if c["best"] is not None}
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{self.summary_path} is damaged: {error!r}") from None

    def summary(self) -> dict[str, Any]:
        """``summary.json``, with at least its ``classes``.

        Raises ``RunError`` where the file is missing or damaged.
        """
        path = self.summary_path
        if not path.exists():
            raise RunError(f"{path} is missing: the run has not come to its end; resume it")
        summary = read_json(path)
        if not isinstance(summary, dict) or not isinstance(summary.get("classes"), list):
            raise RunError(f"{path} is damaged: it has no list of classes")
        return summary

    def write_summary(self, summary: Mapping[str, Any]) -> Path:
        """Write ``summary.json``. NaN is a ``ValueError``: say None where there is no number."""
        write_json(self.summary_path, summary)
        return self.summary_path

    def _read(self, trial: Trial) -> TrialResult:
        path = trial_path(self.path, trial.class_id, trial.index)
        return read_trial(path, trial, self.facts, self.config.method, self.config.steps)


def _differences(run: RunDirectory, config: RunConfig, facts: RunFacts) -> list[Change]:
    any_batch = run.config.deterministic and config.deterministic
    return changes(
        _identity(run.config, run.facts, any_batch=any_batch),
        _identity(config, facts, any_batch=any_batch),
    )


def _identity(config: RunConfig, facts: RunFacts, *, any_batch: bool) -> dict[str, Any]:
    """What must be the same for two runs to give the same bytes, by the name a user would know.

    The fingerprint stands for the weights' file, which may have moved; ``strict`` changes no byte,
    nor does the size of a batch with ``any_batch``.
    """
    generator = json.loads(json.dumps(facts.generator))  # tuples and lists alike
    elsewhere = {"weights", "classifier_weights", "strict"}
    if any_batch:
        elsewhere.add("batch_embeddings")
    return {
        **config.model_dump(exclude=elsewhere),
        **{f"generator.{key}": value for key, value in generator.items() if key != "name"},
        "classifier.fingerprint": facts.classifier["fingerprint"],
        "class names": facts.class_names,
        **{f"versions.{name}": value for name, value in facts.versions.items()},
        **{f"device.{name}": value for name, value in facts.device.items()},
    }
