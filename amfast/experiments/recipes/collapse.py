"""Section 3.1: AM-L repairs a class that has collapsed."""

from __future__ import annotations

from amfast.experiments.laboratory import Laboratory
from amfast.experiments.measured import Finding
from amfast.experiments.recipes.statements import more_diverse, more_recognised


def collapse(lab: Laboratory) -> list[Finding]:
    am_l = lab.measure("AM-L", lab.optimise("AM-L", method="am-l").directory.path)
    return [more_diverse("AM-L", am_l), more_recognised("AM-L", am_l)]
