"""Section 3.4: the class's own embedding with noise added, in place of an optimisation."""

from __future__ import annotations

from amfast.api import own_rows
from amfast.experiments.laboratory import Laboratory
from amfast.experiments.measured import Finding
from amfast.optimize.initializers import METHODS, initial_embeddings, parse_init
from amfast.optimize.trials import plan_trials

NOISES = {"noise-S": 0.1, "noise-L": 0.3}


def noise(lab: Laboratory) -> list[Finding]:
    am_l = lab.measure("AM-L", lab.optimise("AM-L", method="am-l").directory.path)
    job = lab.job(method="am-s")
    trials = plan_trials(job.config.classes, 1, job.config.seed)
    names = {i: job.label(i) for i in job.config.classes}
    start = parse_init("own", METHODS["am-s"])
    rows = own_rows(job.generator, job.classifier)
    gain = am_l["lpips", "am"] - am_l["lpips", "original"]
    findings = []
    for name, deviation in NOISES.items():
        drawn = initial_embeddings(
            start, deviation, job.generator.class_embeddings, trials, own=rows, top={}
        )
        found = {trial.class_id: row for trial, row in zip(trials, drawn, strict=True)}
        measured = lab.measure(name, lab.keep(name, job.generator, names, found))
        share = 100 * (measured["lpips", "am"] - measured["lpips", "original"]) / gain
        before, after = measured["top1", "original"], measured["top1", "am"]
        findings.append(
            Finding(
                f"{name} does not bring the diversity that AM-L brings",
                share < 50,
                f"{share:.0f} % of AM-L's gain in LPIPS; top-1 {before:.2f} -> {after:.2f}, "
                f"AM-L {am_l['top1', 'am']:.2f}",
            )
        )
    return findings
