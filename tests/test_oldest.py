"""The oldest versions that are tested are the oldest that pip would take."""

from __future__ import annotations

import re

from tests.command import REPOSITORY

#: What people who use amfast install; its tests and its development may want anything.
USED = ("dependencies", "classifiers", "metrics", "plot", "dali")


def bounds() -> dict[str, str]:
    """Name -> lower bound, read line by line: Python has a reader of TOML only from 3.11 on."""
    text = (REPOSITORY / "pyproject.toml").read_text()
    found: dict[str, str] = {}
    for name in USED:
        # The last of them: the project's own classifiers come before its extra of that name.
        section = re.findall(rf"^{name} = \[\n(.*?)^\]", text, re.DOTALL | re.MULTILINE)[-1]
        for line in section.splitlines():
            if requirement := re.match(r'\s*"([\w-]+)([^";]*)', line):
                bound = re.fullmatch(r">=([\d.]+)", requirement[2])
                assert bound, f"{line.strip()}: every dependency has a lower bound"
                assert found.setdefault(requirement[1], bound[1]) == bound[1]
    return found


def test_the_oldest_versions_are_the_lower_bounds():
    lines = (REPOSITORY / "tests/oldest.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert {name: version.removesuffix(".*") for name, version in pinned.items()} == bounds()
    assert {name for name, version in pinned.items() if version.endswith(".*")} == {
        "torch",  # any patch of the first minor version, which brings its own torchvision
        "torchvision",
    }
