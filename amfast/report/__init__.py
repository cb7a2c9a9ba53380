"""A run directory as one page to open, look at and pass on."""

from __future__ import annotations

from amfast.report.write import Report, report_if_possible, write_report

__all__ = ["Report", "report_if_possible", "write_report"]
