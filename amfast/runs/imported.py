"""The directory of embeddings that were made elsewhere (docs/formats.md)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from amfast.errors import RunError
from amfast.runs.directory import RunDirectory
from amfast.runs.embeddings_file import EmbeddingsFile
from amfast.runs.facts import ClassifierFacts, GeneratorFacts, versions
from amfast.runs.files import read_bytes, write_json
from amfast.runs.numbered import create_numbered, slug
from amfast.text import parse_json

METHOD = "imported"


class ImportedFile(BaseModel):
    """One file that embeddings were read from."""

    file: str
    sha256: str
    embeddings: int


class ImportedFrom(BaseModel):
    """What was asked for: ``generator`` and ``weights`` as ``load_generator`` takes them."""

    generator: str
    weights: str | None
    files: list[ImportedFile]


class _ImportedRunFile(BaseModel):
    """``run.json``."""

    format: Literal["amfast-run"] = "amfast-run"
    format_version: Literal[1] = 1
    config: None = None
    imported: ImportedFrom
    generator: GeneratorFacts
    classifier: ClassifierFacts | None
    class_names: dict[int, str]
    versions: dict[str, str]
    created: str
    notes: list[str] = []


@dataclass(frozen=True)
class ImportedRun:
    """A run directory without a run: ``run.json`` and ``embeddings.safetensors``."""

    path: Path
    imported: ImportedFrom
    generator: GeneratorFacts

    @staticmethod
    def create(
        outdir: Path,
        imported: ImportedFrom,
        generator: GeneratorFacts,
        classifier: ClassifierFacts | None,
        class_names: dict[int, str],
        embeddings: EmbeddingsFile,
    ) -> ImportedRun:
        """A new numbered directory in ``outdir``; ``RunError`` as for ``RunDirectory.create``."""
        content = _ImportedRunFile(
            imported=imported,
            generator=generator,
            classifier=classifier,
            class_names=class_names,
            versions=versions(),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )

        def fill(claim: Path) -> None:
            embeddings.write(claim / "embeddings.safetensors")
            write_json(claim / "run.json", content.model_dump(mode="json"))

        path = create_numbered(outdir, f"{slug(generator['name'])}-{METHOD}", fill)
        return ImportedRun(path, imported, generator)

    @staticmethod
    def open(path: Path) -> ImportedRun:
        """The imported embeddings whose ``run.json`` is in ``path``; ``RunError`` where none is."""
        file = path / "run.json"
        try:
            run = _ImportedRunFile.model_validate_json(read_bytes(file))
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"])) or "the file"
            raise RunError(f"{file} is damaged: {where}: {problem['msg']}") from None
        return ImportedRun(path, run.imported, run.generator)

    @property
    def embeddings_path(self) -> Path:
        return self.path / "embeddings.safetensors"


def open_any_run(path: Path) -> RunDirectory | ImportedRun:
    """A run or imported embeddings, whichever ``path`` holds; ``RunError`` where it is neither."""
    try:
        content = parse_json(read_bytes(path / "run.json"))
    except ValueError:
        return RunDirectory.open(path)  # which says what is wrong with it
    imported = isinstance(content, dict) and "imported" in content
    return ImportedRun.open(path) if imported else RunDirectory.open(path)
