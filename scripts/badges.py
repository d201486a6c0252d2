"""A number that was computed from reported ones is no measurement of the page: its badge says so.

Follows names through a notebook: what is assigned from ``nanogpt2.reported``, or from a function
that reads it, is reported, and so is whatever is made of it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

READ_REPORTED = {
    "bills", "cost_fall", "data_rows", "digit_rows", "energy_rows", "extrapolated_rows",
    "fall_rows", "gpt2_dollars", "gpt2_kwh", "gpt3_hours", "hand_rows", "leaderboard_rows",
    "margin_rows", "mfu_rows", "part_rows", "plan_rows", "price_rows", "printed_law",
    "published_scores", "record", "record_mfu", "record_step", "reported_rows", "run1_dollars",
    "size_rows", "step_parts", "text_rows",
}  # fmt: skip
"""functions of the package (and a recipe's ``record``) that rest on reported numbers"""
SHOWN = {"claim", "table"}


def wrong_badges(cells: Iterable[str]) -> list[str]:
    """Sentences for the ``lab.claim`` and ``lab.table`` calls of a notebook that miss the badge."""
    names: set[str] = set()
    found = []
    for cell in cells:
        for statement in ast.parse(cell).body:
            for call in _shown(statement):
                said = {n.value for n in ast.walk(call) if isinstance(n, ast.Constant)}
                if _rests(call, names) and "reported" not in said:
                    what = ast.unparse(call)[:60]
                    found.append(f"{what!r} shows what others reported; badge it 'reported'")
            if "reported" in _made(statement):
                found.append("a cell gives the name 'reported' to something else; choose another")
            _follow(statement, names)
    return found


def _shown(node: ast.AST) -> Iterator[ast.Call]:
    for inner in ast.walk(node):
        if (
            isinstance(inner, ast.Call)
            and isinstance(inner.func, ast.Attribute)
            and inner.func.attr in SHOWN
            and ast.unparse(inner.func.value) == "lab"
        ):
            yield inner


def _rests(node: ast.AST, names: set[str]) -> bool:
    """Whether an expression mentions something reported."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name) and inner.id in names | {"reported"} | READ_REPORTED:
            return True
        if isinstance(inner, ast.Attribute) and inner.attr in READ_REPORTED:
            return True
    return False


def _follow(statement: ast.stmt, names: set[str]) -> None:
    """What a statement makes reported, and what it no longer is."""
    if isinstance(statement, (ast.FunctionDef, ast.For, ast.With)):
        for inner in statement.body:
            _follow(inner, names)
    if isinstance(statement, ast.FunctionDef) and _rests(statement, names):
        names.add(statement.name)
    made = _made(statement)
    if _rests(statement, names - made):
        names |= made
    else:
        names -= made


def _made(statement: ast.stmt) -> set[str]:
    """Names that a statement gives a value."""
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, (ast.AugAssign, ast.AnnAssign)):
        targets = [statement.target]
    return {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
