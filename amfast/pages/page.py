"""A page from its template: one HTML file that needs no network, for ``file://`` and for print."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined


@dataclass(frozen=True)
class Page:
    """A template with its style and script, files of one package of ours.

    ``template`` extends ``base.html`` and fills its blocks ``title`` and ``main``; ``data`` given
    to ``render`` reaches the script as ``JSON.parse`` of the element ``data``. Beside the base's
    own style there may be one of the page's, and one script, which is the only thing that the
    page's Content-Security-Policy lets run; it lets nothing be loaded but ``data:`` images. A
    template therefore holds no ``style`` attributes, no handlers and no further scripts: they would
    be silently ignored.
    """

    package: str
    template: str
    style: str | None = None
    script: str | None = None

    def render(self, *, data: object = None, **values: object) -> str:
        """The whole page. Every value is escaped where it is put in: names are text, not HTML.

        ``data`` is anything that JSON can hold. Raises ``jinja2.UndefinedError`` for a value that
        the template wants and is not among ``values``.
        """
        style = _read("amfast.pages", "base.css")
        if self.style is not None:
            style += _read(self.package, self.style)
        script = "" if self.script is None else _read(self.package, self.script)
        policy = (
            f"default-src 'none'; img-src data:; style-src {_hash(style)}; "
            f"script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
        )
        template = self._environment().get_template(self.template)
        return template.render(
            **values, page_policy=policy, page_style=style, page_script=script, page_data=data
        )

    def _environment(self) -> Environment:
        def load(name: str) -> str:
            return _read("amfast.pages" if name == "base.html" else self.package, name)

        return Environment(
            loader=FunctionLoader(load),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )


def _read(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """The source expression that allows exactly this inline text (CSP level 3, 2.3.1)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
