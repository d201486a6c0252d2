"""HTML that a notebook shows and the built book keeps: one look, light and dark, no network.

Every part brings its own style and script, so that it works wherever the output is opened. Scripts
find their parts by class and mark them as wired; no part depends on an id or on another part.
"""

from __future__ import annotations

import re
import secrets
from html import escape
from importlib import resources

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


def part(kind: str, body: str, script: str = "", attributes: str = "") -> str:
    """A whole part: its style, ``body`` in a box of class ``ng-kind``, and its script."""
    wiring = f"<script>{script}</script>" if script else ""
    return f'<style>{STYLE}</style><div class="ng ng-{kind}" {attributes}>{body}</div>{wiring}'


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


def fresh_name() -> str:
    """A name no other part of the page has: radio groups and SVG ids need one."""
    return "ng" + secrets.token_hex(5)
