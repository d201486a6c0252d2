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
from nanogpt2.lab.seams import SEAMS, Flip, patched
from nanogpt2.lab.timing import best_seconds, median_seconds
from nanogpt2.optim import muon, sharded

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
    """Every call of ``patched`` and ``Flip``, with where it stands; ``Flip`` itself calls one."""
    return [
        (where, node)
        for where, text in code()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).split(".")[-1] in ("patched", "Flip")
        and where != "lab/seams.py"
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


AXIS = Flip("nanogpt2.optim.muon.shape_factor", "rows / cols", "cols / rows")


def test_a_flip_changes_one_line_for_a_block_and_says_which() -> None:
    right = muon.shape_factor
    with AXIS():
        assert (muon.shape_factor(1, 4), muon.shape_factor(4, 1)) == (2.0, 1.0)
    assert muon.shape_factor is right and right(4, 1) == 2.0
    changed = [line for line in AXIS.diff().splitlines() if line[0] in "+-"]
    assert changed == [
        "-    return max(1.0, rows / cols) ** 0.5",
        "+    return max(1.0, cols / rows) ** 0.5",
    ]


def test_a_flipped_method_is_one_still_and_sees_its_module() -> None:
    flip = Flip("nanogpt2.optim.sharded.Stack.update", ".div_(self.comm.world_size)", "")
    with flip():
        changed = sharded.Stack.update
        assert changed.__globals__ is vars(sharded) and "div_" not in changed.__code__.co_names
    assert "div_" in sharded.Stack.update.__code__.co_names


@pytest.mark.parametrize("right", ["max(2.0", "rows"])
def test_a_flip_of_what_does_not_stand_there_once_is_refused(right: str) -> None:
    with pytest.raises(ValueError, match="does not stand once"):
        Flip("nanogpt2.optim.muon.shape_factor", right, "")()
