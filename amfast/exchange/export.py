"""``amfast export``: a run's embeddings in a form that another program reads."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from amfast.api import rows_by_name
from amfast.errors import RunError, UsageError
from amfast.exchange.models import deep_config, patch_biggan, patch_biggan_deep, saved
from amfast.exchange.names import file_stem
from amfast.generators import load_generator
from amfast.generators.sources import read_generator, weights_path
from amfast.runs.directory import RunDirectory
from amfast.runs.embeddings_file import EmbeddingsFile, read_embeddings
from amfast.runs.files import refuse_existing, write_bytes, write_directory
from amfast.runs.imported import ImportedRun, open_any_run

ExportFormat = Literal["safetensors", "npy", "pytorch-pretrained-biggan", "biggan-pytorch"]
TrialChoice = Literal["best", "all"]
#: Format -> the end of its default name; those without a suffix are directories.
FORMATS: dict[ExportFormat, str] = {
    "safetensors": ".safetensors",
    "npy": "-npy",
    "pytorch-pretrained-biggan": "-pytorch-pretrained-biggan",
    "biggan-pytorch": ".pth",
}
#: Beside files that have no place for it: which generator and which trials they are of.
MANIFEST = "amfast.json"


@dataclass(frozen=True)
class Exported:
    """What was written where. ``path`` is a file or, for two of the formats, a directory."""

    path: Path
    format: ExportFormat
    generator: str
    generator_fingerprint: str
    #: class_id, name, trial and, by format, file and index or row, for each embedding
    trials: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        return {"path": str(self.path), **self.manifest()}

    def manifest(self) -> dict[str, Any]:
        """``amfast.json``."""
        return {
            "format": "amfast-export",
            "format_version": 1,
            "exported": self.format,
            "generator": self.generator,
            "generator_fingerprint": self.generator_fingerprint,
            "trials": self.trials,
        }


def export_run(
    run: str | Path,
    format: ExportFormat,
    *,
    trials: TrialChoice = "best",
    weights: str | Path | None = None,
    out: str | Path | None = None,
) -> Exported:
    """Write the embeddings of the run directory ``run`` in another program's form.

    ``trials``: the best one of each class, as ``Result.best`` has it, or all that did not fail.
    ``"safetensors"`` is an embeddings file of ours, ``"npy"`` a directory of ``003_name.npy`` files
    as biggan-am has them, fp32 ``[trials, E]``. ``"pytorch-pretrained-biggan"`` is a directory
    that ``BigGAN.from_pretrained`` of that package opens, ``"biggan-pytorch"`` a state_dict of the
    BigGAN-PyTorch repository: both hold the whole generator, with the best trials in their classes'
    own rows, or with all trials as further classes behind the others. They need the ``weights``
    that the run used, a file or a directory; without it, those that ``run.json`` names.

    ``out`` must not exist yet; without it, the run's name in the working directory. Raises
    ``UsageError`` for unknown options, ``RunError`` for a run that is damaged, unfinished or of
    other weights, and ``WeightsError`` for weights that cannot be read. Nothing is left behind
    then.
    """
    for name, value, known in (
        ("format", format, get_args(ExportFormat)),
        ("trials", trials, get_args(TrialChoice)),
    ):
        if value not in known:
            raise UsageError(f"{name} is {value!r}: it may be {', '.join(known)}")
    if weights is not None and format in ("safetensors", "npy"):
        raise UsageError(f"{format} takes no weights: it holds embeddings alone")
    stored = open_any_run(Path(run))
    file = _embeddings(stored)
    target = Path(f"{stored.path.resolve().name}{FORMATS[format]}") if out is None else Path(out)
    refuse_existing(target)
    chosen = file if trials == "all" else _best(stored, file)
    if not chosen.rows():
        raise RunError(f"{stored.path} holds no embedding to export: all of its trials failed")

    def describe(places: Sequence[dict[str, Any]]) -> Exported:
        return Exported(
            target,
            format,
            chosen.generator,
            chosen.generator_fingerprint,
            [
                {"class_id": class_id, "name": chosen.class_names[class_id], "trial": trial, **at}
                for (class_id, trial), at in zip(chosen.rows(), places, strict=True)
            ],
        )

    if format == "safetensors":
        chosen.write(target)
        return describe([{} for _ in chosen.rows()])
    if format == "npy":
        return _write_npy(target, chosen, describe)
    return _write_model(target, format, stored, chosen, weights, trials, describe)


_Describe = Callable[[Sequence[dict[str, Any]]], Exported]


def _embeddings(stored: RunDirectory | ImportedRun) -> EmbeddingsFile:
    if not stored.embeddings_path.exists():
        raise RunError(
            f"{stored.embeddings_path} is missing: the run has not come to its end; resume it first"
        )
    facts = stored.generator if isinstance(stored, ImportedRun) else stored.facts.generator
    return read_embeddings(stored.embeddings_path, facts)


def _best(stored: RunDirectory | ImportedRun, file: EmbeddingsFile) -> EmbeddingsFile:
    if isinstance(stored, RunDirectory):
        best = set(stored.best().items())
        if lacking := best - set(file.rows()):
            raise RunError(f"{stored.embeddings_path} lacks the best trials {sorted(lacking)}")
    else:
        best = set(file.rows())
        if len(best) > len(file.class_names):
            raise RunError(
                f"{stored.path} holds imported embeddings, several of a class, and nothing says "
                "which is the best: export all trials"
            )
    return file.select([i for i, row in enumerate(file.rows()) if row in best])


def _write_npy(target: Path, chosen: EmbeddingsFile, describe: _Describe) -> Exported:
    of_class: dict[int, list[int]] = {}
    for row, (class_id, _) in enumerate(chosen.rows()):
        of_class.setdefault(class_id, []).append(row)
    names = {i: f"{file_stem(i, chosen.class_names[i])}.npy" for i in of_class}
    exported = describe(
        [
            {"file": names[class_id], "index": of_class[class_id].index(row)}
            for row, (class_id, _) in enumerate(chosen.rows())
        ]
    )
    files = {MANIFEST: _json(exported.manifest())}
    for class_id, rows in of_class.items():
        buffer = io.BytesIO()
        np.save(buffer, chosen.embeddings[rows].numpy().astype("<f4"), allow_pickle=False)
        files[names[class_id]] = buffer.getvalue()
    write_directory(target, files)
    return exported


def _write_model(
    target: Path,
    format: ExportFormat,
    stored: RunDirectory | ImportedRun,
    chosen: EmbeddingsFile,
    weights: str | Path | None,
    trials: TrialChoice,
    describe: _Describe,
) -> Exported:
    source = stored.imported if isinstance(stored, ImportedRun) else stored.config
    path = weights_path(source.generator, source.weights if weights is None else weights)
    generator = load_generator(source.generator, weights=path, device="cpu", dtype="fp32")
    if generator.spec.fingerprint != chosen.generator_fingerprint:
        raise RunError(
            f"{stored.path} was made with generator {chosen.generator} (fingerprint "
            f"{chosen.generator_fingerprint}), and {path} is {generator.spec.name} (fingerprint "
            f"{generator.spec.fingerprint}): give the weights that the run used"
        )
    labels = generator.spec.labels
    if trials == "all":
        rows = [len(labels) + i for i in range(len(chosen.rows()))]
    else:
        own = rows_by_name(labels, chosen.class_names)
        if lacking := [name for i, name in chosen.class_names.items() if i not in own]:
            raise RunError(
                f"generator {generator.spec.name} has no class {', '.join(lacking)} whose row "
                "could be replaced: export all trials, which become further classes"
            )
        rows = [own[class_id] for class_id, _ in chosen.rows()]
    exported = describe([{"row": row} for row in rows])
    manifest = _json(exported.manifest())
    state, metadata, _ = read_generator(path)
    if format == "biggan-pytorch":
        data = saved(patch_biggan(state, chosen.embeddings, rows))
        _write_pair(target, data, target.with_name(f"{target.name}.json"), manifest)
    else:
        patched = patch_biggan_deep(state, chosen.embeddings, rows)
        files = {
            "config.json": _json(deep_config(patched, float(metadata.get("norm_eps", 1e-4)))),
            "pytorch_model.bin": saved(patched),
            MANIFEST: manifest,
        }
        write_directory(target, files)
    return exported


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def _write_pair(path: Path, data: bytes, manifest_path: Path, manifest: bytes) -> None:
    """Both files or neither."""
    refuse_existing(manifest_path)
    write_bytes(manifest_path, manifest)
    try:
        write_bytes(path, data)
    except BaseException:
        manifest_path.unlink()
        raise
