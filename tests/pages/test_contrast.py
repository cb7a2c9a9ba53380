"""The colours have the contrast that WCAG 2.2 AA asks for (1.4.3, 1.4.11)."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

#: Text on its grounds.
TEXT = [
    *((ink, ground) for ink in ("ink", "faint", "accent", "original", "good", "bad")
      for ground in ("paper", "raised")),
    ("on-accent", "accent"),
]  # fmt: skip
#: Marks of charts and the edges of controls.
MARKS = [(mark, "paper") for mark in ("am", "original", "mixed", "real", "edge", "accent")]


def tokens(scheme: str) -> dict[str, str]:
    style = files("amfast.pages").joinpath("base.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", style, flags=re.S)
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", blocks[scheme == "dark"]))


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_the_formula() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(scheme: str) -> None:
    colours = tokens(scheme)
    least = {**dict.fromkeys(TEXT, 4.5), **{pair: 3.0 for pair in MARKS if pair not in TEXT}}
    found = {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in least}
    assert {pair: found[pair] for pair in least if found[pair] < least[pair]} == {}
