"""The embeddings that a run found, in one file to pass on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from amfast.errors import RunError
from amfast.generators.protocol import GeneratorSpec
from amfast.optimize.engine import TrialResult
from amfast.runs.facts import GeneratorFacts, RunFacts, generator_facts
from amfast.runs.tensor_file import check_generator, check_tensors, read_tensors, write_tensors
from amfast.text import parse_json

KIND = "amfast-embeddings"
#: Far above any classifier's; whoever looks up a class makes room for those before it.
_MOST_CLASSES = 1_000_000


@dataclass(frozen=True)
class EmbeddingsFile:
    """Row ``i`` is trial ``trial_ids[i]`` of class ``class_ids[i]``; rows are sorted by both."""

    embeddings: Tensor  # [N, E] fp32
    class_ids: Tensor  # [N] int64
    trial_ids: Tensor  # [N] int64
    class_names: dict[int, str]  # of the classes that have a row
    generator: str
    generator_fingerprint: str
    method: str

    def rows(self) -> list[tuple[int, int]]:
        """(class id, trial index) of every row."""
        return list(zip(self.class_ids.tolist(), self.trial_ids.tolist(), strict=True))

    def select(self, rows: Sequence[int]) -> EmbeddingsFile:
        """These rows alone, in the order given."""
        ids = self.class_ids[list(rows)]
        return replace(
            self,
            embeddings=self.embeddings[list(rows)],
            class_ids=ids,
            trial_ids=self.trial_ids[list(rows)],
            class_names={i: self.class_names[i] for i in ids.tolist()},
        )

    def write(self, path: Path) -> None:
        """Write it. Raises ``RunError`` where the file cannot be written."""
        tensors = {
            "class_embeddings": self.embeddings,
            "class_ids": self.class_ids,
            "trial_ids": self.trial_ids,
        }
        metadata = {
            "generator": self.generator,
            "generator_fingerprint": self.generator_fingerprint,
            "class_names": json.dumps(self.class_names),
            "method": self.method,
        }
        write_tensors(path, KIND, tensors, metadata)


def write_embeddings(
    path: Path, results: Iterable[TrialResult], facts: RunFacts, method: str
) -> None:
    """Write the trials that did not fail. Raises ``RunError`` where the file cannot be written."""
    kept = sorted((r for r in results if not r.failed), key=lambda result: result.trial)
    none = torch.empty(0, facts.generator["embedding_dim"])
    class_ids = [result.trial.class_id for result in kept]
    EmbeddingsFile(
        embeddings=torch.cat([none, *(r.embedding.float()[None] for r in kept)]),
        class_ids=torch.tensor(class_ids, dtype=torch.int64),
        trial_ids=torch.tensor([r.trial.index for r in kept], dtype=torch.int64),
        class_names={class_id: facts.class_names[class_id] for class_id in class_ids},
        generator=facts.generator["name"],
        generator_fingerprint=facts.generator["fingerprint"],
        method=method,
    ).write(path)


def read_embeddings(path: Path, generator: GeneratorSpec | GeneratorFacts) -> EmbeddingsFile:
    """Read embeddings to be shown by ``generator``.

    Raises ``RunError`` for a file that is missing, truncated, damaged, of another generator or not
    of this kind.
    """
    facts = generator_facts(generator) if isinstance(generator, GeneratorSpec) else generator
    tensors, metadata = read_tensors(path, KIND)
    check_generator(path, metadata, facts["name"], facts["fingerprint"])
    count = tensors["class_ids"].numel() if "class_ids" in tensors else 0
    ids = (torch.int64, [count])
    embeddings = (torch.float32, [count, facts["embedding_dim"]])
    expected = {"class_embeddings": embeddings, "class_ids": ids, "trial_ids": ids}
    check_tensors(path, tensors, expected)
    try:
        names = {int(key): str(name) for key, name in parse_json(metadata["class_names"]).items()}
    except (KeyError, ValueError, AttributeError):
        raise RunError(f"{path} is damaged: its class_names are not a JSON object") from None
    for class_id in tensors["class_ids"].tolist():
        if not 0 <= class_id < _MOST_CLASSES or class_id not in names:
            raise RunError(
                f"{path} is damaged: it has a class {class_id}, which has no name in it or is none "
                f"from 0 to {_MOST_CLASSES - 1}"
            )
    return EmbeddingsFile(
        tensors["class_embeddings"],
        tensors["class_ids"],
        tensors["trial_ids"],
        names,
        generator=metadata.get("generator", facts["name"]),
        generator_fingerprint=facts["fingerprint"],
        method=metadata.get("method", "unknown"),
    )
