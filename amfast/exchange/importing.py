"""``amfast import``: embeddings that were made elsewhere, as a run directory."""

from __future__ import annotations

import hashlib
import tokenize
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amfast.classifiers import load_classifier
from amfast.errors import RunError, UsageError
from amfast.exchange.export import MANIFEST
from amfast.exchange.names import class_of
from amfast.generators import load_generator
from amfast.generators.protocol import GeneratorSpec
from amfast.runs.embeddings_file import KIND, EmbeddingsFile, read_embeddings
from amfast.runs.facts import generator_facts
from amfast.runs.files import read_bytes
from amfast.runs.imported import METHOD, ImportedFile, ImportedFrom, ImportedRun
from amfast.runs.tensor_file import check_generator
from amfast.text import parse_json
from amfast.weights.files import read_weights

_MOST = 10_000  # embeddings of one class, as of a run


@dataclass(frozen=True)
class _Target:
    """What embeddings have to fit."""

    spec: GeneratorSpec
    labels: Sequence[str]


def import_embeddings(
    files: Sequence[str | Path],
    outdir: str | Path,
    *,
    generator: str = "embedded",
    weights: str | Path | None = None,
    classifier: str | None = None,
) -> ImportedRun:
    """Read embeddings of other programs into a new run directory in ``outdir``.

    ``files`` are biggan-am's ``003_name.npy`` with ``[E]`` or ``[trials, E]``, ``learned_embeds``
    files (safetensors or ``torch.save``) that map tokens such as ``<tiger-shark>`` to vectors, and
    embeddings files of ours. Their classes are those of ``classifier``, or of the generator where
    none is given. Trials of a class are numbered from 0 in the order of ``files``.

    Raises ``UsageError`` without files or for unknown networks, ``WeightsError`` for a file that
    cannot be read, and ``RunError`` for one that does not fit: of another width or generator, not
    finite, with Python objects in it, of an unknown class. Nothing is left behind then.
    """
    if not files:
        raise UsageError("no file to import was given")
    spec = load_generator(generator, weights=weights, device="cpu", dtype="fp32").spec
    judge = None if classifier is None else load_classifier(classifier, device="cpu").spec
    target = _Target(spec, spec.labels if judge is None else judge.labels)
    rows: list[tuple[int, Tensor]] = []  # class id, embedding [E]
    sources = []
    for path in map(Path, files):
        data = read_bytes(path)  # before its name is read: one that is not there says so
        found = _read(path, target)
        rows += found
        sha256 = hashlib.sha256(data).hexdigest()
        sources.append(ImportedFile(file=path.name, sha256=sha256, embeddings=len(found)))
    rows.sort(key=lambda row: row[0])
    before: Counter[int] = Counter()
    trial_ids = []
    for class_id, _ in rows:
        trial_ids.append(before[class_id])
        before[class_id] += 1
    if not rows:
        raise RunError(f"{', '.join(map(str, files))}: no embedding in there to import")
    if max(before.values()) > _MOST:
        raise RunError(f"more than {_MOST} embeddings of one class: import fewer at a time")
    return ImportedRun.create(
        Path(outdir),
        ImportedFrom(
            generator=generator,
            weights=None if weights is None else str(weights),
            files=sources,
        ),
        generator_facts(spec),
        None if judge is None else {"name": judge.name, "fingerprint": judge.fingerprint},
        dict(enumerate(target.labels)),
        EmbeddingsFile(
            embeddings=torch.stack([embedding for _, embedding in rows]),
            class_ids=torch.tensor([class_id for class_id, _ in rows]),
            trial_ids=torch.tensor(trial_ids),
            class_names={class_id: target.labels[class_id] for class_id in before},
            generator=spec.name,
            generator_fingerprint=spec.fingerprint,
            method=METHOD,
        ),
    )


def _read(path: Path, target: _Target) -> list[tuple[int, Tensor]]:
    if path.suffix == ".npy":
        return _read_npy(path, target)
    tensors, metadata = read_weights(path)
    kind = metadata.get("format", "")
    if kind == KIND:
        return _read_ours(path, target)
    if kind.startswith("amfast-"):
        raise RunError(
            f"{path} holds {kind}, expected {KIND}, learned_embeds or a .npy file of biggan-am"
        )
    rows = []
    for token, tensor in tensors.items():
        class_id = class_of(token, target.labels, f"{path}: {token!r}")
        rows += _vectors(tensor, f"{path}: {token!r}", class_id, target)
    return rows


def _read_ours(path: Path, target: _Target) -> list[tuple[int, Tensor]]:
    file = read_embeddings(path, target.spec)
    rows = []
    for (class_id, trial), embedding in zip(file.rows(), file.embeddings, strict=True):
        name = file.class_names.get(class_id, str(class_id))
        where = f"trial {trial} in {path}"
        wanted = class_of(f"{class_id}_{name}", target.labels, where)
        rows += _vectors(embedding, where, wanted, target)
    return rows


def _read_npy(path: Path, target: _Target) -> list[tuple[int, Tensor]]:
    class_id = class_of(path.stem, target.labels, str(path))
    _check_manifest(path, target.spec)
    try:
        # Mapped, so that a header which promises more than the file holds costs no memory.
        array = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, TypeError, OverflowError, EOFError, SyntaxError, tokenize.TokenError):
        # Of the ways in which numpy's reader fails, none is worth more words to a user.
        raise RunError(
            f"{path} is truncated, no .npy file, or holds Python objects, which amfast does not "
            "unpickle because that can run code: expected numbers of shape [E] or [trials, E]"
        ) from None
    except OSError as error:
        raise RunError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None
    if array.dtype.kind != "f":
        raise _not_floating(str(path), array.dtype)
    numbers = torch.from_numpy(np.array(array, dtype=np.float64, order="C"))
    return _vectors(numbers, str(path), class_id, target)


def _check_manifest(path: Path, spec: GeneratorSpec) -> None:
    """``RunError`` where an export's manifest beside ``path`` says that it is another's."""
    manifest = path.with_name(MANIFEST)
    if not manifest.exists():
        return
    try:
        content = parse_json(read_bytes(manifest))
        listed = {trial.get("file") for trial in content["trials"]}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{manifest}, which goes with {path.name}, is damaged: {error!r}") from None
    if path.name in listed:
        check_generator(path, content, spec.name, spec.fingerprint)


def _vectors(
    tensor: Tensor, where: str, class_id: int, target: _Target
) -> list[tuple[int, Tensor]]:
    """The rows of ``[E]`` or ``[trials, E]`` as fp32; ``RunError`` for anything else."""
    width, name = target.spec.embedding_dim, target.spec.name
    if not tensor.is_floating_point():
        raise _not_floating(where, tensor.dtype)
    if tensor.dim() not in (1, 2) or tensor.shape[-1] != width:
        raise RunError(
            f"{where} is {list(tensor.shape)}; embeddings of generator {name} are [{width}] or "
            f"[trials, {width}]"
        )
    rows = tensor.to(torch.float32).reshape(-1, width)
    if not rows.isfinite().all():
        raise RunError(f"{where} is not finite in fp32: it holds NaN or infinity")
    return [(class_id, row.clone()) for row in rows]


def _not_floating(where: str, dtype: np.dtype[Any] | torch.dtype) -> RunError:
    return RunError(f"{where} holds numbers of type {dtype}, expected floating-point ones")
