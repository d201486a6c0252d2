"""One key a chapter: its notebook, study, tests, records and benchmark go by the same name."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from pathlib import Path

import pytest

from scripts.paths import BOOK, RESULTS, ROOT, chapters
from scripts.rooms import chapters_named, key_of, read_rooms, source_of

CHAPTERS = {key_of(path): path for path in chapters()}
NOTEBOOKS = {**CHAPTERS, "ladder": BOOK / "ladder.ipynb"}
"""the ladder is no chapter but the page that all chapters' techniques are weighed on"""
STUDIES = ROOT / "nanogpt2" / "studies"
HERE = Path(__file__).parent


def of_a_key(name: str, sign: str) -> list[str]:
    """Keys that ``name`` begins with, as the whole of it or up to ``sign``."""
    return [key for key in NOTEBOOKS if name == key or name.startswith(key + sign)]


def test_the_chapters_are_those_of_the_list_in_its_order() -> None:
    written = [chapter.document for chapter in read_rooms() if chapter.document]
    assert written == [f"chapters/{path.stem}" for path in chapters()]


def test_a_chapter_has_the_number_of_its_place_in_the_list() -> None:
    places = {chapter.key: number for number, chapter in enumerate(read_rooms(), 1)}
    assert {path.stem for path in chapters()} == {f"{places[key]:02}_{key}" for key in CHAPTERS}


def test_every_chapter_has_a_study_and_every_study_a_chapter() -> None:
    folders = {path.parent.name for path in STUDIES.glob("*/__init__.py")}
    assert folders == set(NOTEBOOKS)
    assert {path.name for path in STUDIES.glob("*.py")} == {"__init__.py"}


def test_every_chapter_has_tests_and_every_test_a_chapter() -> None:
    tests = {path.stem.removeprefix("test_") for path in HERE.glob("test_*.py")} - {"keys"}
    assert {key for name in tests for key in of_a_key(name, "_")} == set(NOTEBOOKS)
    assert all(of_a_key(name, "_") for name in tests)


@pytest.mark.parametrize("key", CHAPTERS)
def test_a_study_names_its_chapter_and_the_chapter_imports_its_study(key: str) -> None:
    assert chapters_named(source_of(f"nanogpt2.studies.{key}")) == (key,)
    assert re.search(rf"^from nanogpt2\.studies import {key}( as \w+)?$", code_of(key), re.M)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_a_record_has_a_key_and_a_command_that_exists(path: Path) -> None:
    command = json.loads(path.read_text(encoding="utf-8"))["command"]
    module = re.match(r"python -m ([\w.]+)", command)
    assert module and importlib.util.find_spec(module.group(1)), command
    keys = of_a_key(path.stem, "-")
    assert keys or path.stem.startswith("benchmarks-")
    if module.group(1).startswith("nanogpt2.studies."):
        assert module.group(1) == f"nanogpt2.studies.{keys[0]}"


def test_a_benchmark_of_a_chapter_goes_by_its_key() -> None:
    claims = {
        path.stem: chapters_named(path.read_text(encoding="utf-8"))
        for path in sorted((ROOT / "benchmarks").glob("*.py"))
    }
    for name, keys in claims.items():
        assert keys == ((name,) if name in NOTEBOOKS else ()), name
    assert any(claims.values())


@pytest.mark.parametrize("key", NOTEBOOKS)
def test_a_study_offers_what_its_chapter_uses_and_no_more(key: str) -> None:
    face = {
        alias.name
        for node in ast.walk(ast.parse(source_of(f"nanogpt2.studies.{key}")))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    name = re.search(rf"^from nanogpt2\.studies import {key}(?: as (\w+))?$", code_of(key), re.M)
    assert name
    used = {
        node.attr
        for node in ast.walk(ast.parse(code_of(key)))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == (name.group(1) or key)
    }
    assert used == face


def code_of(key: str) -> str:
    """All code of a chapter."""
    cells = json.loads(NOTEBOOKS[key].read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
