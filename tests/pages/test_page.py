"""What every page promises: values are text, and nothing runs or loads but its own script."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pytest
from playwright.sync_api import Browser

from amfast.pages import Page, page
from tests.browser import Visit

TEMPLATE = """{% extends "base.html" %}{% block title %}{{ name }}{% endblock %}
{% block main %}<h1 title="{{ name }}">{{ name }}</h1>{{ extra | safe }}{% endblock %}"""
SCRIPT = """
document.querySelector("h1").dataset.read = JSON.parse(document.getElementById("data").textContent);
"""
HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    '" onclick="x',
    "{{ 7 * 7 }}",
]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Page:
    read = page._read
    own = {"t.html": TEMPLATE, "t.js": SCRIPT}
    monkeypatch.setattr(
        page, "_read", lambda package, name: own[name] if name in own else read(package, name)
    )
    return Page("amfast.pages", "t.html", script="t.js")


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text(made: Page, visit: Visit, tmp_path: Path, name: str) -> None:
    file = tmp_path / "page.html"
    file.write_text(made.render(name=name, extra="", data=name))
    shown = visit(file)
    heading = shown.locator("h1")
    assert heading.inner_text() == name
    assert heading.get_attribute("title") == name
    assert heading.get_attribute("data-read") == name
    assert shown.title() == name


def test_nothing_else_runs_or_loads(made: Page, chromium: Browser, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    hostile = (
        '<script>document.title = "ran"</script><img src="other.png" onerror="document.title=1">'
        '<p style="display: none">shown</p>'
    )
    file.write_text(made.render(name="quiet", extra=hostile, data="x"))
    refused: list[str] = []
    with chromium.new_context() as context:
        shown = context.new_page()
        shown.on("console", lambda message: refused.append(message.text))
        shown.goto(file.as_uri())
        assert shown.title() == "quiet"
        assert shown.locator("p").is_visible()
    assert sum("Content Security Policy" in text for text in refused) >= 3


def test_a_missing_value_is_an_error(made: Page) -> None:
    with pytest.raises(jinja2.UndefinedError):
        made.render(extra="")
