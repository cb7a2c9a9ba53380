"""Section 3.4: the class's own embedding with noise added, in place of an optimisation."""

from __future__ import annotations

from amfast.api import own_rows
from amfast.experiments.laboratory import Laboratory
from amfast.experiments.measured import Finding
from amfast.experiments.recipes.statements import brings_less
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
    findings = []
    for name, deviation in NOISES.items():
        drawn = initial_embeddings(
            start, deviation, job.generator.class_embeddings, trials, own=rows, top={}
        )
        found = {trial.class_id: row for trial, row in zip(trials, drawn, strict=True)}
        measured = lab.measure(name, lab.keep(name, job.generator, names, found))
        findings.append(brings_less(name, measured, "AM-L", am_l))
    return findings
