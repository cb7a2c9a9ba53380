"""Table S2: the same with several classifiers."""

from __future__ import annotations

from amfast.experiments.laboratory import Laboratory
from amfast.experiments.measured import Finding
from amfast.experiments.recipes.statements import listed

PUBLISHED = ("alexnet", "inception_v3", "resnet50", "resnet50-robust")
EMBEDDED = ("embedded", "embedded-again", "embedded-undisturbed", "embedded-robust")


def classifiers(lab: Laboratory) -> list[Finding]:
    options = lab.options
    names = options.classifiers or (EMBEDDED if options.generator == "embedded" else PUBLISHED)
    own, diverse, fids = 0.0, [], {}
    for name in names:
        run = lab.optimise(name, method="am-l", classifier=name, classifier_weights=None)
        measured = lab.measure(name, run.directory.path)
        own = measured["lpips", "original"]
        diverse.append(measured["lpips", "am"])
        fid, trained = (measured.value("fid", of) for of in ("am", "original"))
        if fid is not None and trained is not None:
            fids[name] = (fid, trained)
    findings = [
        Finding(
            "AM-L raises diversity (LPIPS) with every classifier",
            min(diverse) > own,
            f"as trained {own:.2f}; {listed(names, diverse)}",
        )
    ]
    if fids:
        better = [name for name, (fid, trained) in fids.items() if fid < trained]
        _, trained = next(iter(fids.values()))
        findings.append(
            Finding(
                "Which classifier is optimised for decides the FID",
                0 < len(better) < len(fids),
                f"as trained {trained:.2f}; {listed(list(fids), [f for f, _ in fids.values()])}",
            )
        )
    return findings
