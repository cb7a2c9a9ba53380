"""Web pages in one file each: nothing is fetched, and nothing in them runs but our own script."""

from __future__ import annotations

from amfast.pages.page import Page

__all__ = ["Page"]
