"""Section 3.2: classes of another data set, of which the generator saw none."""

from __future__ import annotations

from dataclasses import replace

from amfast.api import likest_rows
from amfast.experiments.laboratory import Laboratory
from amfast.experiments.measured import Finding
from amfast.experiments.recipes.statements import listed


def places(lab: Laboratory) -> list[Finding]:
    options = lab.options
    if options.judge is None:  # no other classifier may know the classes
        lab.options = replace(
            options, judge=options.classifier, judge_weights=options.classifier_weights
        )
    job = lab.job(method="am-l")
    rows = likest_rows(job.generator, job.classifier, job.config, 1)
    table = job.generator.class_embeddings
    names = {i: job.label(i) for i in rows}
    likest = lab.keep("top-1", job.generator, names, {i: table[row] for i, (row,) in rows.items()})
    top1 = lab.measure("top-1", likest)
    run = lab.optimise("AM-L", new_classes=True, method="am-l")
    mean = lab.measure("AM-L", run.directory.path)
    top = f"top-{min(5, len(table))}"
    run = lab.optimise("AM-L from top-5", new_classes=True, method="am-l", init=top)
    top5 = lab.measure("AM-L from top-5", run.directory.path)
    found = ("top-1 class", top1), ("AM-L from the mean", mean), ("AM-L from top-5", top5)
    accuracies = [measured["top1", "am"] for _, measured in found]
    findings = [
        Finding(
            "AM-L beats the likest class as trained in accuracy, from the mean and from top-5",
            min(accuracies[1:]) > accuracies[0],
            f"top-1 accuracy: {listed([name for name, _ in found], accuracies)}",
        )
    ]
    fids = [measured.value("fid", "am") for _, measured in found]
    if all(fid is not None for fid in fids):
        known = [fid for fid in fids if fid is not None]
        findings.append(
            Finding(
                "and in FID",
                max(known[1:]) < known[0],
                f"FID: {listed([name for name, _ in found], known)}",
            )
        )
    return findings
