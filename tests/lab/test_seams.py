"""Changes of the code for a while: where they may happen, and that they end with their block."""

from __future__ import annotations

import ast
import inspect
import json
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import nanogpt2
from nanogpt2.lab.seams import SEAMS, patched
from nanogpt2.lab.timing import best_seconds, median_seconds

PACKAGE = Path(nanogpt2.__file__).parent
CHAPTERS = PACKAGE.parent / "chapters"


def code() -> Iterator[tuple[str, str]]:
    """(name, source) of every module that is no test, and of every code cell of a chapter."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8")
    for path in sorted(CHAPTERS.glob("*.ipynb")):
        for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
            if cell["cell_type"] == "code":
                yield f"{path.name} cell {number}", "".join(cell["source"])


def patches() -> list[tuple[str, ast.Call]]:
    """Every call of ``patched``, with where it stands."""
    return [
        (where, node)
        for where, text in code()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "patched"
    ]


@pytest.mark.parametrize("seam", SEAMS)
def test_a_seam_is_a_public_name_that_exists(seam: str) -> None:
    assert pkgutil.resolve_name(seam) is not None
    assert not any(part.startswith("_") for part in seam.split("."))


@pytest.mark.parametrize("seam", SEAMS)
def test_a_seam_is_looked_up_where_it_is_declared(seam: str) -> None:
    """A module's name that no code of the module reads would change nothing."""
    owner, _, name = seam.rpartition(".")
    place = pkgutil.resolve_name(owner)
    if inspect.ismodule(place):
        read = [n for n in ast.walk(ast.parse(inspect.getsource(place))) if isinstance(n, ast.Name)]
        assert name in {node.id for node in read if isinstance(node.ctx, ast.Load)}


def test_every_change_is_at_a_seam_and_every_seam_is_used() -> None:
    found = patches()
    literal = {
        call.args[0].value
        for _, call in found
        if isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str)
    }
    assert all(isinstance(call.args[0], ast.Constant) for _, call in found), found
    assert literal == set(SEAMS)


def test_nothing_else_in_the_studies_or_chapters_changes_the_package() -> None:
    """Neither ``setattr`` nor an assignment to a name of a module."""
    for where, text in code():
        if not where.startswith(("studies/", "lab/")) and "ipynb" not in where:
            continue
        tree = ast.parse(text)
        modules = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nanogpt2")
            for alias in node.names
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "setattr":
                assert where == "lab/seams.py", where
            for target in node.targets if isinstance(node, ast.Assign) else []:
                owner = target.value if isinstance(target, ast.Attribute) else None
                assert not (isinstance(owner, ast.Name) and owner.id in modules), where


def test_what_was_patched_comes_back_even_after_an_error() -> None:
    from nanogpt2.model import norm

    right = norm.rms_norm
    with pytest.raises(ZeroDivisionError), patched("nanogpt2.model.norm.rms_norm", 2) as before:
        assert (norm.rms_norm, before) == (2, right)
        raise ZeroDivisionError
    assert norm.rms_norm is right


def test_a_place_that_is_not_declared_is_refused() -> None:
    with pytest.raises(ValueError, match="declare it"), patched("nanogpt2.model.gpt.GPT", None):
        pass


def test_the_first_call_does_not_count() -> None:
    calls: list[str] = []
    assert median_seconds(lambda: calls.append("a"), 3) >= 0
    assert calls == ["a"] * 4
    found = best_seconds([lambda: calls.append("b"), lambda: calls.append("c")], 2)
    assert calls[4:] == ["b", "c"] * 3 and len(found) == 2
