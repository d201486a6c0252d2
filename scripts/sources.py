"""What a page's cells call and do not show: under each a line says what it does and where it is."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from html import escape
from pathlib import Path
from typing import Any

import nanogpt2
from scripts.presentation import FOLDED, REMOVED, SHOWS, STUDY

ROOT = Path(nanogpt2.__file__).parents[1]


def name_sources(cells: list[dict[str, Any]], url: str, branch: str) -> list[dict[str, Any]]:
    """The notebook's ``cells`` with a line under each that is the first to call a function of
    ``nanogpt2.lab`` or of the chapter's study: what it does, and a link to its source."""
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    rooms = {alias or name: f"nanogpt2.studies.{name}" for name, alias in STUDY.findall(code)}
    rooms["lab"] = "nanogpt2.lab"
    seen: set[tuple[str, str]] = set()
    found = []
    for number, cell in enumerate(cells):
        found.append(cell)
        tags = set(cell["metadata"].get("tags", []))
        if cell["cell_type"] != "code" or REMOVED in tags or any("exercise" in t for t in tags):
            continue
        new = [at for at in _called("".join(cell["source"]), rooms, FOLDED in tags)
               if at not in seen]  # fmt: skip
        seen |= set(new)
        lines = [_line(alias, name, rooms[alias], url, branch) for alias, name in new]
        if text := "<br>".join(filter(None, lines)):
            source = f'<p class="ng-source">{text}</p>'
            found.append({"cell_type": "markdown", "id": f"source-{number}", "metadata": {},
                          "source": source})  # fmt: skip
    return found


def _called(code: str, rooms: dict[str, str], folded: bool) -> dict[tuple[str, str], None]:
    """(alias, name) of what a cell takes from ``rooms``, in order; plotting helpers left out."""
    nodes = [n for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Attribute)]
    nodes.sort(key=lambda node: (node.lineno, node.col_offset))
    pairs = [(n.value.id, n.attr) for n in nodes if isinstance(n.value, ast.Name)]
    hidden = SHOWS | {"check_parameters"}
    return dict.fromkeys(
        (alias, name)
        for alias, name in pairs
        if alias in rooms and not (alias == "lab" and (folded or name in hidden))
    )


def _line(alias: str, name: str, room: str, url: str, branch: str) -> str:
    """One function's line; empty for what is no function or class, and explains itself."""
    thing = inspect.unwrap(getattr(importlib.import_module(room), name, None))  # type: ignore[arg-type]
    if not ((inspect.isfunction(thing) or inspect.isclass(thing)) and thing.__doc__):
        return ""
    file = Path(inspect.getsourcefile(thing) or "").resolve().relative_to(ROOT).as_posix()
    start = inspect.getsourcelines(thing)[1]
    told = re.split(r"(?<=[.;])\s|\n\n", thing.__doc__.strip())[0].rstrip(" .;,")
    told = re.sub(r"``([^`]+)``", r"<code>\1</code>", escape(" ".join(told.split())))
    link = f'<a href="{url}/blob/{branch}/{file}#L{start}">source</a>'
    return f"<code>{alias}.{name}</code>: {told} ({link})"
