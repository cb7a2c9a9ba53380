"""Tables of text, the first row the head, for a terminal or a page."""

from __future__ import annotations

from collections.abc import Sequence

Table = Sequence[Sequence[str]]


def markdown(table: Table) -> str:
    head, *body = ["| " + " | ".join(cells) + " |" for cells in table]
    return "\n".join([head, "|" + " --- |" * len(table[0]), *body])


def aligned(table: Table) -> str:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = (zip(row, widths, strict=True) for row in table)
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in line).rstrip() for line in lines
    )
