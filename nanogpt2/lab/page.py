"""HTML that a notebook shows and the built book keeps: one look, light and dark, no network.

Every part brings its own style and script, so that it works wherever the output is opened. Scripts
find their parts by class and mark them as wired; no part depends on an id or on another part.
"""

from __future__ import annotations

import json
import re
from functools import cache
from html import escape
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

STATIC = resources.files("nanogpt2.lab") / "static"
"""the pages' style and scripts"""


def static(name: str) -> str:
    """Text of a file of ``lab/static``."""
    return (STATIC / name).read_text(encoding="utf-8")


STYLE = " ".join(re.sub(r"/\*.*?\*/", "", static("lab.css")).split())
"""``lab.css`` on one line: every part carries it"""


class Html:
    """Something a notebook shows as ``html`` and a terminal as ``text``."""

    def __init__(self, html: str, text: str) -> None:
        self.html, self.text = html, text

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def part(kind: str, body: str, script: str = "", **data: Any) -> str:
    """A whole part: its style, ``body`` in a box of class ``ng-kind``, and its script.

    ``data`` are the box's data attributes, what is no text as JSON.
    """
    told = {k: v if isinstance(v, str) else json.dumps(v) for k, v in data.items()}
    attributes = "".join(f' data-{name}="{escape(text)}"' for name, text in told.items())
    wiring = f"<script>{script}</script>" if script else ""
    return f'<style>{STYLE}</style><div class="ng ng-{kind}"{attributes}>{body}</div>{wiring}'


def rendered(template: str, **values: Any) -> str:
    """``lab/static/TEMPLATE.html.j2`` with ``values``, whose text is escaped."""
    return _templates().get_template(f"{template}.html.j2").render(values)


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("nanogpt2.lab", "static"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"inline": lambda text: Markup(inline(text)), "json": json.dumps}
    return environment


def script(*names: str) -> str:
    """Files of ``lab/static`` as one script that leaves no name on the page."""
    return f"(() => {{\n{''.join(static(f'{name}.js') for name in ('wire', *names))}}})();"


def inline(text: str) -> str:
    """Escaped text in which `code` and *emphasis* are marked up."""
    safe = escape(text)
    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", safe)
    return re.sub(r"(?<![\w*])\*([^*\s][^*]*)\*(?!\w)", r"<em>\1</em>", safe)


def plain(text: str) -> str:
    """The same text without its marks."""
    return re.sub(r"`([^`]+)`", r"\1", text)
