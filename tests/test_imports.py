"""Who may import whom: studies stand on the lab and alone, benchmarks and tests apart."""

from __future__ import annotations

import ast
import functools
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.lines import PACKAGE, ROUND, house, taught
from scripts.rooms import PAGES

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {path: number for number, room in enumerate(house()[0]) for path in room.paths()}
"""the room of each file, counted from the ground"""
COMMANDS = ("evals/core/__main__.py", "evals/harness.py", "evals/bits_per_byte.py")
"""what people start may take from anywhere: CORE's command loads a model from a checkpoint"""


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


def on_load(path: Path) -> set[Path]:
    """Files of the package that are loaded with ``path``: those of functions and types are not."""
    found: set[Path] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {target_of(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts = {target_of(f"{node.module}.{alias.name}") for alias in node.names}
            found |= parts & set(ROOMS) or {target_of(node.module)}
    return found & set(ROOMS)


def target_of(name: str) -> Path:
    """The file of a dotted name of the package."""
    place = PACKAGE.joinpath(*name.split(".")[1:])
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


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


def test_every_file_has_one_room() -> None:
    homes = [path for room in house()[0] for path in room.paths()]
    assert len(homes) == len(set(homes))
    assert set(homes) == set(files("nanogpt2")) - {PACKAGE / "__init__.py"}


@pytest.mark.parametrize("path", sorted(ROOMS), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    if path.relative_to(PACKAGE).as_posix() in COMMANDS:
        return
    for name in imported(path):
        if name.startswith("nanogpt2."):
            assert ROOMS.get(target_of(name), 0) <= ROOMS[path], f"{name} lies above"


def test_no_circle() -> None:
    """Within a room too: of files that import each other (when loaded) none begins."""
    graph = {path: on_load(path) - {path} for path in ROOMS}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def test_readme_names_the_rooms_as_they_are() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    said = [int(n.replace(",", "")) for n in re.findall(r"\| ([\d,]+) \|$", text, re.MULTILINE)]
    found = [room.lines for room in house()[0]]
    assert len(said) == len(found)
    assert all(abs(a - b) <= 2 * ROUND for a, b in zip(said, found, strict=True)), (
        "run python -m scripts.lines --readme"
    )
    for room in house()[0]:
        assert all(f"(nanogpt2/{name.rstrip('/')})" in text for name in room.files), room.name


def test_api_pages_show_every_room() -> None:
    shown = {f"{name}.py" for names in PAGES.values() for name in names}
    shown |= {f"{name}/" for names in PAGES.values() for name in names}
    for room in house()[0][1:]:  # the ground is on the last page, with whatever else is unnamed
        assert set(room.files) <= shown, room.name


def test_the_taught_path_is_short() -> None:
    assert sum(taught().values()) <= house()[2]


def test_the_oldest_python_reads_every_class() -> None:
    """3.10 evaluates no bare ClassVar in a dataclass of pydantic, and has no generic NamedTuple."""
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"ClassVar( =|\n)", text), path
        for node in ast.walk(ast.parse(text, feature_version=(3, 10))):
            bases = {ast.unparse(base).partition("[")[0] for base in getattr(node, "bases", ())}
            assert not bases >= {"NamedTuple", "Generic"}, path
