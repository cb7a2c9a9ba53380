"""matplotlib without a display, and files of the same bytes for the same figure."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amfast.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".svg", ".pdf", ".png")
#: The pages' colours of light mode (amfast/pages/base.css).
COLOURS = {"original": "#a8480c", "am": "#0b5cad", "mixed": "#6b3fa0", "real": "#1f6f43"}
#: Those of a scatter, which are told apart without colour too.
MARKERS = {"original": "o", "am": "^", "mixed": "s", "real": "D"}
NAMES = {"original": "original", "am": "AM", "mixed": "original + AM", "real": "real"}
_FAINT = "#565d6b"

#: ``hashsalt`` names the parts of an SVG, which are random otherwise; names are text, not TeX.
_STYLE: dict[str, Any] = {
    "svg.hashsalt": "amfast",
    "pdf.fonttype": 42,
    "text.parse_math": False,
    "text.usetex": False,
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": "#1b1e24",
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "legend.frameon": False,
}
#: What would say when, or by which version, a file was written.
_UNDATED: dict[str, dict[str, None]] = {
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    ".png": {"Software": None},
}


def check_format(path: Path) -> None:
    """``UsageError`` for a file that is none of ``FORMATS`` by its name."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(
            f"{str(path)!r} is to be written as {path.suffix or 'nothing'}; a figure is .svg, .pdf "
            "or .png by the name of its file"
        )


@contextmanager
def style() -> Iterator[None]:
    """matplotlib's defaults, whatever the user's own settings are, and ours.

    Raises ``UsageError`` where there is no matplotlib.
    """
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise UsageError("figures need matplotlib: pip install 'amfast[plot]'") from None
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        settings: Any = matplotlib.rcParams  # its keys are literals to mypy, other ones by version
        settings.update(_STYLE)
        yield


def new_figure(
    rows: int, columns: int, *, width: float, height: float
) -> tuple[Figure, list[list[Axes]]]:
    """A figure of width times height inches and its axes, row by row. Only under ``style``."""
    from matplotlib.figure import Figure  # not pyplot, which would look for a display

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False).tolist()


def to_file(figure: Figure, suffix: str) -> bytes:
    """The bytes of a figure's file; ``suffix`` is one of ``FORMATS``. Only under ``style``."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix[1:], metadata=_UNDATED[suffix], dpi=200)
    return buffer.getvalue()


def shown(name: str) -> str:
    """A name with what is no printable character shown as its number: SVG cannot hold it."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in name)
