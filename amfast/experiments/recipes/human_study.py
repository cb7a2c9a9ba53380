"""Section 3.6: people compare AM's images with those of the class as trained."""

from __future__ import annotations

from amfast.experiments.laboratory import Laboratory
from amfast.experiments.measured import Finding
from amfast.study import make_study


def human_study(lab: Laboratory) -> list[Finding]:
    run = lab.optimise("AM-L", method="am-l")
    measured = lab.measure("AM-L", run.directory.path)
    page = run.directory.path / "study" / "index.html"
    if not page.exists():  # a survey that was sent out is never drawn anew
        make_study(run.directory.path, device=lab.options.device)
    lab.files["survey"] = str(page)
    own, am = measured["lpips", "original"], measured["lpips", "am"]
    return [
        Finding(
            "The survey is ready: open it, and score the answers with 'amfast study score'",
            page.exists(),
            f"what the measures expect people to see: LPIPS {own:.2f} -> {am:.2f}, top-1 "
            f"{measured['top1', 'original']:.2f} -> {measured['top1', 'am']:.2f}",
        )
    ]
