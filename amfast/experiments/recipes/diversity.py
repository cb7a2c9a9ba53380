"""Sections 3.3 and 3.7: AM-S, AM-L and BigGAN+AM beside the classes as trained (Fig. 7)."""

from __future__ import annotations

from amfast.experiments.laboratory import Laboratory
from amfast.experiments.measured import Finding
from amfast.experiments.recipes.statements import more_diverse


def diversity(lab: Laboratory) -> list[Finding]:
    findings = []
    for name in ("AM-S", "AM-L"):
        run = lab.optimise(name, method=name.lower())
        measured = lab.measure(name, run.directory.path)
        findings.append(more_diverse(name, measured))
        own, am, mixed = (measured.value("lpips", of) for of in ("original", "am", "mixed"))
        fid_own, fid_am, fid_mixed = (
            measured.value("fid", of) for of in ("original", "am", "mixed")
        )
        if own is None or am is None or mixed is None:
            continue
        if fid_own is None or fid_am is None or fid_mixed is None:
            continue  # no real images to compare with
        kept = f"{100 * (mixed - own) / (am - own):.0f} % of the" if am > own else "there is no"
        findings.append(
            Finding(
                f"BigGAN+AM ({name}) keeps most of AM's gain in diversity and has the better FID",
                am > own and mixed - own > (am - own) / 2 and fid_mixed < fid_am,
                f"{kept} gain in LPIPS; FID as trained {fid_own:.2f}, {name} {fid_am:.2f}, mixed "
                f"{fid_mixed:.2f}",
            )
        )
    return findings
