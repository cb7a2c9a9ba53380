"""The paper's figures of a run, as SVG, PDF or PNG files for a paper."""

from __future__ import annotations

from amfast.plots.plot import FIGURES, FigureName, plot_run

__all__ = ["FIGURES", "FigureName", "plot_run"]
