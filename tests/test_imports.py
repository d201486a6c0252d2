"""Who may import whom: studies stand on the lab and alone, benchmarks and tests apart."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@functools.cache
def imported(path: Path) -> set[str]:
    """Dotted names that a file imports, wherever in it; ``from a import b`` gives a and a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def takes_from(path: Path, room: str) -> bool:
    """Whether ``path`` imports ``room`` or something of it."""
    return any(name == room or name.startswith(f"{room}.") for name in imported(path))


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def test_imports_are_found_wherever_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("import x.y\ndef f():\n    from tests import drills\n")
    assert takes_from(path, "tests.drills") and takes_from(path, "x")
    assert not takes_from(path, "test") and not takes_from(path, "drills")


def test_only_studies_take_from_studies_and_only_their_own() -> None:
    for path in files("nanogpt2"):
        parts = path.relative_to(ROOT / "nanogpt2").parts
        others = {name for name in imported(path) if name.startswith("nanogpt2.studies.")}
        own = f"nanogpt2.studies.{parts[1]}" if parts[0] == "studies" else "nothing"
        assert not {name for name in others if f"{name}.".split(f"{own}.")[0]}, path


def test_only_studies_and_the_lab_take_from_the_lab() -> None:
    for path in files("nanogpt2"):
        if path.relative_to(ROOT / "nanogpt2").parts[0] not in ("lab", "studies"):
            assert not takes_from(path, "nanogpt2.lab"), path


def test_the_trainer_is_handed_what_measures_a_model() -> None:
    """Only where the command is put together is an evaluation named, and none is imported."""
    named = [path.name for path in files("nanogpt2/training") if takes_from(path, "nanogpt2.evals")]
    assert named == ["trainer.py"]
    code = "import sys, nanogpt2.training.trainer; print([n for n in sys.modules if 'evals' in n])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


@pytest.mark.parametrize(("folder", "other"), [("benchmarks", "tests"), ("tests", "benchmarks")])
def test_benchmarks_and_tests_stand_apart(folder: str, other: str) -> None:
    assert files(folder)
    for path in files(folder):
        assert not takes_from(path, other), path


def test_the_package_takes_from_nothing_around_it() -> None:
    for path in files("nanogpt2"):
        assert not any(takes_from(path, room) for room in ("tests", "benchmarks", "scripts")), path
