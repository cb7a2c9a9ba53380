"""Statements that several experiments look at."""

from __future__ import annotations

from collections.abc import Sequence

from amfast.experiments.measured import Finding, Measured


def more_diverse(name: str, found: Measured) -> Finding:
    """Of the classes that the generator has: LPIPS up in every one of them."""
    classes = [i for i in found.classes if found.value("lpips", "original", i) is not None]
    pairs = {i: (found["lpips", "original", i], found["lpips", "am", i]) for i in classes}
    return Finding(
        f"{name} raises the diversity (LPIPS) of every class",
        bool(pairs) and all(after > before for before, after in pairs.values()),
        changes(pairs, found),
    )


def more_recognised(name: str, found: Measured) -> Finding:
    """The judge's top-1 accuracy over all classes does not fall."""
    before, after = found["top1", "original"], found["top1", "am"]
    return Finding(
        f"{name} raises the accuracy", after > before, f"top-1 {before:.2f} -> {after:.2f}"
    )


def changes(pairs: dict[int, tuple[float, float]], found: Measured) -> str:
    """``star 2.90 -> 5.10, ...``, the first ten."""
    shown = [
        f"{found.classes[i]} {before:.2f} -> {after:.2f}"
        for i, (before, after) in list(pairs.items())[:10]
    ]
    return ", ".join([*shown, *(["..."] if pairs.keys() - list(pairs)[:10] else [])])


def listed(names: Sequence[str], values: Sequence[float], digits: int = 2) -> str:
    return ", ".join(f"{n} {v:.{digits}f}" for n, v in zip(names, values, strict=True))
