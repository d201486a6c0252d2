"""What a chapter's page folds away, so that the code left open is the code that it teaches.

A cell that puts a table, a figure, a claim or a picture of the chapter's study on the page is
folded (tag ``hide-input``): a reader who wants its captions opens it. A cell with a question or its
answer is removed (``remove-input``), since its code says what the reader is to find out. Both stay
in the notebook and run like all others.
"""

from __future__ import annotations

import ast
import re

FOLDED, REMOVED = "hide-input", "remove-input"
SHOWS = {
    "bars", "claim", "claims", "curves", "explore", "heatmap", "lines", "show",
    "table", "variations_table",
}  # fmt: skip
"""functions of ``nanogpt2.lab`` that only put something on the page"""
ASKS = {"panel", "predict", "quiz"}
TAUGHT = (ast.Assert, ast.ClassDef, ast.For, ast.With, ast.Import, ast.ImportFrom)
"""statements that a folded cell must not hold: a reader should see them"""
STUDY = re.compile(r"^from nanogpt2\.studies import (\w+)(?: as (\w+))?$", re.M)


def studies(code: str) -> set[str]:
    """The names under which a notebook's code knows its study."""
    return {alias or name for name, alias in STUDY.findall(code)}


def tag_needed(cell: str, known: set[str]) -> str:
    """The tag that a cell must carry; empty where it teaches and stays open.

    Args:
        cell: source.
        known: ``studies`` of the notebook.
    """
    body = ast.parse(cell).body
    calls = [
        (ast.unparse(node.func.value), node.func.attr)
        for statement in body
        for node in ast.walk(statement)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    if any(name == "reveal" or (of == "lab" and name in ASKS) for of, name in calls):
        return REMOVED
    if any(of == "lab" and name in SHOWS for of, name in calls):
        return FOLDED
    last = body[-1] if body else None
    if isinstance(last, ast.Expr) and isinstance(last.value, ast.Call):
        shown = ast.unparse(last.value.func).partition(".")[0]
        return FOLDED if shown in known else ""
    return ""


def open_answers(cells: list[tuple[str, set[str]]]) -> list[str]:
    """Sentences about cells, given as source and tags, that a page would show and must not."""
    known = studies("\n".join(source for source, _ in cells))
    found = []
    for source, tags in cells:
        if any(tag.startswith("exercise-") for tag in tags):
            continue
        needed = tag_needed(source, known)
        if needed and not tags & {needed, REMOVED}:
            start = source.splitlines()[0]
            why = "asks or answers a question" if needed == REMOVED else "is presentation"
            found.append(f"the cell {start!r} {why}; tag it {needed}")
        if needed == FOLDED and any(isinstance(s, TAUGHT) for s in ast.parse(source).body):
            start = source.splitlines()[0]
            found.append(f"the cell {start!r} folds away code that teaches; split it")
    return found
