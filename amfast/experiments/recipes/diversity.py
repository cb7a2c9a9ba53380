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
        if None in (own, am, mixed, fid_own, fid_am, fid_mixed):
            continue  # no real images to compare with, or no class of the generator's own
        assert own and am and mixed and fid_own and fid_am and fid_mixed
        kept = 100 * (mixed - own) / (am - own) if am != own else 0.0
        findings.append(
            Finding(
                f"BigGAN+AM ({name}) keeps most of AM's gain in diversity and has the better FID",
                kept > 50 and fid_mixed < fid_am,
                f"{kept:.0f} % of the gain in LPIPS; FID as trained {fid_own:.2f}, {name} "
                f"{fid_am:.2f}, mixed {fid_mixed:.2f}",
            )
        )
    return findings
