"""HTML that a notebook shows and the built book keeps: one look, light and dark, no network.

Every part brings its own style and script, so that it works wherever the output is opened. Scripts
find their parts by class and mark them as wired; no part depends on an id or on another part.
"""

from __future__ import annotations

import re
import secrets
from html import escape

STYLE = """
.ng{--ng-c0:#0072b2;--ng-c1:#c4540a;--ng-c2:#00805d;--ng-c3:#b0528a;--ng-c4:#8a6a00;
--ng-c5:#5b6570;--ng-line:rgba(127,127,127,.45);--ng-soft:rgba(127,127,127,.12);margin:1em 0}
html[data-theme="dark"] .ng,body[data-jp-theme-light="false"] .ng,body.vscode-dark .ng{
--ng-c0:#56b4e9;--ng-c1:#f0883e;--ng-c2:#2fc79a;--ng-c3:#dd93bf;--ng-c4:#e0c04a;--ng-c5:#a3acb6}
html[data-theme="dark"] .bd-content div.cell_output .text_html:has(.ng){background:none;
color:inherit;padding:0}
.ng figure{margin:0}.ng figcaption{font-size:.9em;opacity:.85;margin-top:.3em}
.ng svg text{font-family:system-ui,sans-serif}
.ng svg{max-width:100%;height:auto;display:block;margin:0 auto}
.ng .ng-hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.ng-box{border:1px solid var(--ng-line);border-left:4px solid var(--ng-c0);border-radius:4px;
padding:.7em 1em}
.ng-box fieldset{border:0;padding:0;margin:0;min-width:0}
.ng-box legend{font-size:1em;font-weight:600;margin:0 0 .4em;padding:0;float:none;width:auto}
.ng-choice{display:flex;gap:.6em;align-items:baseline;margin:0;padding:.35em .3em;cursor:pointer}
.ng-choice.ng-right{outline:2px solid var(--ng-c2);border-radius:4px}
.ng-choice.ng-wrong{outline:2px dashed var(--ng-c1);border-radius:4px}
.ng button{font:inherit;color:inherit;background:var(--ng-soft);border:1px solid currentColor;
border-radius:4px;padding:.3em .9em;margin:.4em .5em 0 0;min-height:2.2em;cursor:pointer}
.ng button:disabled{opacity:.5;cursor:not-allowed}
.ng :focus-visible{outline:3px solid var(--ng-c0);outline-offset:2px}
.ng-controls{display:flex;flex-wrap:wrap;gap:.3em 1.5em;margin-bottom:.5em}
.ng-control{display:flex;flex:1 1 15em;gap:.7em;align-items:center;margin:0}
.ng-control input{flex:1 1 7em;min-width:5em;height:1.8em;accent-color:var(--ng-c0);cursor:pointer}
.ng-control output{min-width:4.5em;font-variant-numeric:tabular-nums;padding:0}
.ng-badge{font-size:.75em;border:1px solid currentColor;border-radius:1em;padding:.05em .6em;
white-space:nowrap;vertical-align:.1em}
.ng-live{color:var(--ng-c2)}.ng-recorded{color:var(--ng-c0)}.ng-reported{color:var(--ng-c3)}
.ng-claim{margin:.2em 0}.ng-scroll{overflow-x:auto}
.ng table{border-collapse:collapse;margin:.3em auto;font-variant-numeric:tabular-nums}
.ng th,.ng td{padding:.3em .8em;border-bottom:1px solid var(--ng-line);text-align:right}
.ng th:first-child,.ng td:first-child,.ng .ng-words{text-align:left}
.ng caption{caption-side:top;color:inherit}
.ng-pass{border-left-color:var(--ng-c2)}.ng-fail{border-left-color:var(--ng-c1)}
""".replace("\n", "")


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


def wire(kind: str, body: str) -> str:
    """JavaScript that runs ``body`` once for each part ``box`` of that kind not wired before."""
    return (
        f"document.querySelectorAll('.ng-{kind}:not([data-wired])').forEach(function(box){{"
        f"box.setAttribute('data-wired','');{body}}});"
    )


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
