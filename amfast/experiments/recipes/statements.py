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
    """The judge's top-1 accuracy over all classes is higher than as trained."""
    before, after = found["top1", "original"], found["top1", "am"]
    return Finding(
        f"{name} raises the accuracy", after > before, f"top-1 {before:.2f} -> {after:.2f}"
    )


def brings_less(name: str, found: Measured, rival: str, best: Measured) -> Finding:
    """A baseline's gain in LPIPS is less than half of ``rival``'s, which has to have one."""
    gain, brought = (m["lpips", "am"] - m["lpips", "original"] for m in (best, found))
    share = (
        f"{100 * brought / gain:.0f} % of {rival}'s gain in LPIPS"
        if gain > 0
        else f"{rival} gains nothing in LPIPS: {gain:+.2f}, and this {brought:+.2f}"
    )
    before, after = found["top1", "original"], found["top1", "am"]
    return Finding(
        f"{name} does not bring the diversity that {rival} brings",
        gain > 0 and brought < gain / 2,
        f"{share}; top-1 {before:.2f} -> {after:.2f}, {rival} {best['top1', 'am']:.2f}",
    )


def changes(pairs: dict[int, tuple[float, float]], found: Measured) -> str:
    """``star 2.90 -> 5.10, ...``, the first ten."""
    shown = [
        f"{found.classes[i]} {before:.2f} -> {after:.2f}"
        for i, (before, after) in list(pairs.items())[:10]
    ]
    return ", ".join(shown) + (", ..." if len(pairs) > len(shown) else "")


def listed(names: Sequence[str], values: Sequence[float], digits: int = 2) -> str:
    return ", ".join(f"{n} {v:.{digits}f}" for n, v in zip(names, values, strict=True))
