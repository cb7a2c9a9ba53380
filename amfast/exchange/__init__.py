"""Embeddings in the forms that other programs read and write (docs/formats.md)."""

from __future__ import annotations

from amfast.exchange.export import FORMATS, Exported, export_run
from amfast.exchange.importing import import_embeddings

__all__ = ["FORMATS", "Exported", "export_run", "import_embeddings"]
