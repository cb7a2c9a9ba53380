"""What was measured of one variant, and what an experiment finds in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """A statement that the paper or this experiment makes, whether it holds here, and by what."""

    statement: str
    holds: bool
    figures: str


class Measured:
    """An ``evaluation.json`` (docs/formats.md), asked by the plain names of its measures.

    ``"lpips"`` stands for ``lpips[embedded]`` and its like.
    """

    def __init__(self, evaluation: Mapping[str, Any]) -> None:
        self.evaluation = evaluation
        self.classes: dict[int, str] = {c["class_id"]: c["name"] for c in evaluation["classes"]}

    def value(self, measure: str, of: str = "am", class_id: int | None = None) -> float | None:
        """Of a set of images (``original``, ``am``, ``mixed``, ``real``), of one class or all.

        None where it was not measured.
        """
        where = self.evaluation["overall"]
        if class_id is not None:
            where = next(c for c in self.evaluation["classes"] if c["class_id"] == class_id)
        for found in where["sets"].get(of, []):
            if found["name"].partition("[")[0] == measure:
                return float(found["value"])
        return None

    def __getitem__(self, key: tuple[str, str] | tuple[str, str, int]) -> float:
        """The same, of a measure that there must be: ``KeyError`` without."""
        value = self.value(*key)
        if value is None:
            raise KeyError(f"{key} was not measured")
        return value

    def row(self, of: str) -> dict[str, float]:
        """Every measure of a set of all classes together, by its full name."""
        found = self.evaluation["overall"]["sets"].get(of, [])
        return {measure["name"]: measure["value"] for measure in found}
