"""The table of faults names tests that there are."""

from __future__ import annotations

import ast
import re

from tests.command import REPOSITORY


def test_every_test_of_the_table_is_there():
    text = (REPOSITORY / "docs" / "reliability.md").read_text()
    named = re.findall(r"(tests/[\w/]+\.py)::(\w+)", text)
    assert len(named) > 20
    for path, name in named:
        parsed = ast.parse((REPOSITORY / path).read_text())
        assert name in {node.name for node in parsed.body if isinstance(node, ast.FunctionDef)}, (
            f"{path}::{name}"
        )
