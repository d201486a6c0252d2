"""Committed notebooks are clean and readable; each check is shown to catch what it must."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.notebooks import MAX_LINES, problems, unmarked_numbers
from scripts.paths import BOOK, notebooks


def cell(kind: str, text: str, name: str, **metadata: Any) -> dict[str, Any]:
    made = {"cell_type": kind, "id": name, "metadata": metadata, "source": text}
    return made | ({"outputs": [], "execution_count": None} if kind == "code" else {})


BEGIN = """import nanogpt2
from nanogpt2 import lab

assert nanogpt2.__version__ == "0.1.0"
lab.check_parameters(DEPTH, SCALE, SEED)"""


def good() -> dict[str, Any]:
    return {
        "cells": [
            cell("markdown", "# Title\n\nA question?", "a"),
            cell("code", 'DEPTH = 12\nSCALE = "ci"\nSEED = 0', "b", tags=["parameters"]),
            cell("code", BEGIN, "c"),
        ],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def found_in(notebook: dict[str, Any], folder: Path) -> str:
    path = folder / "01_tried.ipynb"
    path.write_text(json.dumps(notebook))
    return "\n".join(problems(path))


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_committed_notebook_is_fit(path: Path) -> None:
    assert problems(path) == []


def test_a_good_notebook_passes(tmp_path: Path) -> None:
    assert found_in(good(), tmp_path) == ""


def test_outputs_are_caught(tmp_path: Path) -> None:
    notebook = good()
    notebook["cells"][1]["execution_count"] = 1
    assert "clear them" in found_in(notebook, tmp_path)


def test_local_metadata_is_caught(tmp_path: Path) -> None:
    notebook = good()
    notebook["metadata"]["widgets"] = {}
    notebook["metadata"]["kernelspec"]["name"] = "my-env"
    found = found_in(notebook, tmp_path)
    assert "widgets" in found and "python3" in found


def test_equal_cell_ids_are_caught(tmp_path: Path) -> None:
    notebook = good()
    notebook["cells"][1]["id"] = "a"
    assert "an id of its own" in found_in(notebook, tmp_path)


@pytest.mark.parametrize("name", ["DEPTH", "SCALE", "SEED"])
def test_a_missing_parameter_is_caught(name: str, tmp_path: Path) -> None:
    notebook = good()
    notebook["cells"][1]["source"] = notebook["cells"][1]["source"].replace(name, "OTHER")
    assert f"lacks {name}" in found_in(notebook, tmp_path)


def test_unchecked_parameters_are_caught(tmp_path: Path) -> None:
    notebook = good()
    notebook["cells"][2]["source"] = BEGIN.replace("SEED)", "0)")
    assert "must call lab.check_parameters(DEPTH, SCALE, SEED)" in found_in(notebook, tmp_path)


def test_a_missing_version_assertion_is_caught(tmp_path: Path) -> None:
    notebook = good()
    notebook["cells"][2]["source"] = "import nanogpt2\nprint(nanogpt2.__version__)"
    assert "must assert" in found_in(notebook, tmp_path)


def test_long_cells_and_lines_are_caught(tmp_path: Path) -> None:
    notebook = good()
    notebook["cells"] += [cell("code", "x = 1\n" * (MAX_LINES + 1), "d")]
    notebook["cells"] += [cell("code", "y = " + "1 + " * 20 + "1", "e")]
    notebook["cells"] += [cell("code", "z = 1\n" * 9, f"f{i}") for i in range(3)]
    found = found_in(notebook, tmp_path)
    assert "31 lines" in found and "79 columns" in found and "median of 9" in found


def test_a_notebook_without_title_is_caught(tmp_path: Path) -> None:
    notebook = good()
    notebook["cells"][0]["source"] = "Some text"
    assert "title" in found_in(notebook, tmp_path)


@pytest.mark.parametrize(
    "text", ["It reached 0.748 bits per byte.", "It is 1.7× as fast.", "A step took 5.4 seconds."]
)
def test_typed_measurements_are_caught(text: str) -> None:
    assert unmarked_numbers(text)
    assert not unmarked_numbers(text + ' <span class="ng-badge ng-live">live</span>')
    assert not unmarked_numbers("{{ reported }} " + text)


@pytest.mark.parametrize("text", ["Use base 10.5.", "Section 2.3 has it.", "GPT-2 has 1.5B."])
def test_plain_numbers_are_not(text: str) -> None:
    assert not unmarked_numbers(text)


@pytest.mark.parametrize("path", sorted(BOOK.rglob("*.md")), ids=lambda path: path.stem)
def test_pages_have_no_typed_measurements(path: Path) -> None:
    assert unmarked_numbers(path.read_text(encoding="utf-8")) == []
