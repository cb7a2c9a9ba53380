"""Section 3.8 and Fig. 8: the generator at several moments of its training, repaired at each."""

from __future__ import annotations

from pathlib import Path

from amfast.embedded import EMBEDDED
from amfast.errors import UsageError
from amfast.experiments.laboratory import Laboratory
from amfast.experiments.measured import Finding
from amfast.experiments.recipes.statements import more_diverse


def snapshots(lab: Laboratory) -> list[Finding]:
    options = lab.options
    files = [Path(file) for file in options.snapshots]
    if not files and options.generator == "embedded":
        files = sorted((EMBEDDED / "snapshots").glob("*.safetensors"))
        files.append(EMBEDDED / "generator.safetensors")
    if not files:
        raise UsageError(
            f"snapshots of {options.generator} are needed: name the generator's weights at several "
            "moments of its training, the earliest first, each with --snapshot PATH"
        )
    findings = []
    for number, file in enumerate(files, start=1):
        name = f"snapshot {number} {file.stem}"
        run = lab.optimise(name, method="am-s", weights=str(file))
        measured = lab.measure(name, run.directory.path, against=options.against)
        findings.append(more_diverse(f"AM-S at {file.stem}", measured))
    return findings
