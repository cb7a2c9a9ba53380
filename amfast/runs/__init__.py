"""The run directory: everything a run leaves on disk (docs/formats.md)."""

from __future__ import annotations

from amfast.runs.directory import RunDirectory
from amfast.runs.embeddings_file import EmbeddingsFile, read_embeddings
from amfast.runs.facts import RunFacts

__all__ = ["EmbeddingsFile", "RunDirectory", "RunFacts", "read_embeddings"]
