"""A headless Chromium that opens the pages amfast writes, and holds them to what they promise."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

#: Opens a page of a file at a width, light or dark.
Visit = Callable[..., Page]
_BROWSER = pytest.StashKey[Browser]()


@pytest.fixture(scope="session")
def chromium(pytestconfig: pytest.Config) -> Browser:
    """Debian's Chromium; a machine without one skips these tests, CI fails them.

    One for all folders whose conftest imports this: Playwright starts once in a process.
    """
    if _BROWSER in pytestconfig.stash:
        return pytestconfig.stash[_BROWSER]
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if path is None:
        missing = "no chromium on the path: apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    playwright = sync_playwright().start()
    pytestconfig.add_cleanup(playwright.stop)
    browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
    pytestconfig.add_cleanup(browser.close)
    pytestconfig.stash[_BROWSER] = browser
    return browser


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Visit]:
    """``visit(path, width=1280, dark=False)``: the page of a file, from ``file://``.

    When the test ends, a word on any page's console, an exception in its script, and a request for
    anything but the page itself and ``data:`` and ``blob:`` addresses each fail it.
    """
    said: list[str] = []
    contexts = []

    def open_page(path: Path, *, width: int = 1280, dark: bool = False) -> Page:
        context = chromium.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            accept_downloads=True,
        )
        contexts.append(context)
        page = context.new_page()
        own = path.resolve().as_uri()
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"exception: {error}"))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.split("#")[0] == own or request.url.startswith(("data:", "blob:"))
                else said.append(f"request: {request.url}")
            ),
        )
        page.goto(own)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not said
