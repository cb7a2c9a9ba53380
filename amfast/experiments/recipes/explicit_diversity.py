"""Section 3.5: an explicit term of diversity beside the log-probability (AM-D)."""

from __future__ import annotations

from amfast.experiments.laboratory import Laboratory
from amfast.experiments.measured import Finding

PHIS = ("pixel", "conv5", "softmax")


def explicit_diversity(lab: Laboratory) -> list[Finding]:
    findings = []
    for name in ("AM-S", "AM-L"):
        plain = lab.measure(name, lab.optimise(name, method=name.lower()).directory.path)
        method = name.lower().replace("am-", "am-d-")
        for phi in PHIS:
            title = f"{method.upper()} {phi}"
            run = lab.optimise(title, method=method, diversity=phi)
            found = lab.measure(title, run.directory.path)
            before, after = plain["lpips", "am"], found["lpips", "am"]
            findings.append(
                Finding(
                    f"{title} is more diverse than {name}",
                    after > before,
                    f"LPIPS {before:.2f} -> {after:.2f}, MS-SSIM {plain['ms_ssim', 'am']:.3f} -> "
                    f"{found['ms_ssim', 'am']:.3f}, top-1 {plain['top1', 'am']:.2f} -> "
                    f"{found['top1', 'am']:.2f}",
                )
            )
    return findings
