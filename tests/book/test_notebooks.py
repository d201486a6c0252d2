"""Committed notebooks are clean and readable; each check is shown to catch what it must."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from nanogpt2.reported import BEYOND, LEADERBOARD, RUN4_CORES, constants
from scripts.badges import wrong_badges
from scripts.notebooks import MAX_LINES, problems, settings, unmarked_numbers
from scripts.paths import BOOK, ROOT, notebooks
from scripts.presentation import FOLDED, REMOVED, open_answers, studies, tag_needed
from tests.book.answers import shown_answers


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


TYPED = [
    "Run 1 reached a CORE of 0.25851.",
    "The deviation was 0.0062.",
    "The compute-optimal ratio is 10.5.",
    "It costs 73 dollars.",
    "GPT-2 cost 43,008, they say.",
    "At 24 an hour it is cheap.",
    "All 91,037 items were asked.",
    "A DGX draws 10.2 kW, a chip 278 W.",
    "It reached 50% of the peak.",
    "It read 300 billion tokens.",
]


@pytest.mark.parametrize("text", TYPED)
def test_numbers_of_prose_are_caught(text: str) -> None:
    assert unmarked_numbers(text)
    assert not unmarked_numbers(text + " {{ reported }}")
    assert not unmarked_numbers("*Hard, 10 minutes.* " + text)


ALLOWED = [
    "Section 2.3 has it.",
    "GPT-2 has 1.5B.",
    "In 2019, at depth 24, rows have 2,048 tokens and 32,768 rows.",
    "The base went from 10,000 to 500,000.",
    "Here $\\ell = 0.0123$ and `x = 0.0123`, as in {eq}`eq-0.0123`.",
    "The momentum rises from 0.85 to 0.97.",
    "It costs {{ run1_cost }} dollars.",
    "Python 3.11 and PyTorch 2.13 will do.",
]


@pytest.mark.parametrize("text", ALLOWED)
def test_plain_numbers_are_not(text: str) -> None:
    assert not unmarked_numbers(text)


def test_what_rests_on_reported_numbers_is_not_live() -> None:
    cells = [
        "from nanogpt2 import lab, reported\nx = 2 * reported.RUN1_CORE\nz = 1",
        "y = f'{x:.2f}'\nlab.claim('a', y)",
        "lab.claim('b', y, 'reported', reported.RUN1_CORE.source)\nlab.claim('c', z)",
        "def f(a):\n    return a * x\nlab.table(['h'], [[f(1)]])",
        "y = 1\nlab.claim('d', y)",
        "lab.claims(lab.claim('e', gpt2_kwh()), lab.claim('g', recipe.record.core))",
    ]
    found = wrong_badges(cells)
    assert len(found) == 4
    assert all("badge it 'reported'" in line for line in found)
    assert "choose another" in wrong_badges(["reported = []"])[0]


def test_a_notebook_with_a_wrong_badge_is_caught(tmp_path: Path) -> None:
    notebook = good()
    text = "from nanogpt2 import reported\nlab.claim('hours', reported.RUN1_SECONDS / 3600)"
    notebook["cells"] += [cell("code", text, "d", tags=["hide-input"])]
    assert "badge it 'reported'" in found_in(notebook, tmp_path)


STUDY = "from nanogpt2.studies import muon as m\nx = m.measure()"
CELLS = [
    ("lab.quiz('why?', ['a', 'b'], 'b', 'so')", REMOVED),
    ("bet = lab.predict('why?', ['a', 'b'])\nbet", REMOVED),
    ("held = 3\nbet.reveal(held, 'so')", REMOVED),
    ("rows = [1]\nlab.table(['a'], [rows])", FOLDED),
    ("lab.explore(m.frame, a=[1, 2])", FOLDED),
    ("m.picture('caption')", FOLDED),
    (STUDY, ""),
    ("assert m.measure() == 3", ""),
    ("runs = lab.small_runs(seeds=(0,))", ""),
]


@pytest.mark.parametrize(("source", "tag"), CELLS)
def test_presentation_must_be_folded_and_questions_removed(source: str, tag: str) -> None:
    study = (STUDY, set())
    assert tag_needed(source, studies(STUDY)) == tag
    assert bool(open_answers([study, (source, set())])) == bool(tag)
    assert open_answers([study, (source, {tag})]) == []
    if tag == REMOVED:
        assert open_answers([study, (source, {FOLDED})])


def test_code_that_teaches_must_not_be_folded_away() -> None:
    source = "for x in range(3):\n    y = x\nlab.claim('y', y)"
    assert "split it" in open_answers([(source, {FOLDED})])[0]
    assert open_answers([("lab.claim('y', 3)", {"exercise-check-1"})]) == []


def test_a_notebook_that_shows_an_answer_is_caught(tmp_path: Path) -> None:
    notebook = good()
    text = "lab.quiz('why?', ['a', 'b'], 'b', 'so')"
    notebook["cells"] += [cell("code", text, "d")]
    assert "tag it remove-input" in found_in(notebook, tmp_path)


WHY = "Each token adds to the sum, so that a long ending would lose for its length."
QUIZ = f"<article><div class='ng-quiz' data-whys='{json.dumps([WHY, 'Try another.'])}'></div>"
CODE = '<pre>lab.quiz("?", "Each token adds to the sum, "\n    "so that a long ending would "\n' + (
    '    "lose for its length.")</pre>'
)
REVEAL = (
    "<div class='ng-reveal'><div class='ng-after' hidden><p><strong>Measured: longer.</strong> "
    "The masked one is slower, as the"
)


def test_an_answer_in_full_view_is_seen() -> None:
    bs4 = pytest.importorskip("bs4")

    def told(html: str) -> list[str]:
        return shown_answers(bs4.BeautifulSoup(html, "html.parser"))

    assert told(f"{QUIZ}{CODE}</article>") == [WHY]
    assert told(f"{QUIZ}<details><summary>code</summary>{CODE}</details></article>") == []
    assert told(f"{QUIZ}<details open><summary>code</summary>{CODE}</details></article>") == [WHY]
    closed = f"<article>{REVEAL} clock says.</p></div></div></article>"
    assert told(closed) == []
    assert told(closed.replace("</article>", "<p>The masked one is slower, as the clock says.</p>"))


def test_the_cause_of_a_case_in_full_view_is_seen() -> None:
    bs4 = pytest.importorskip("bs4")
    box = f"<div class='ng-case'><template class='ng-cause'><p>{WHY}</p></template></div>"

    def told(html: str) -> list[str]:
        return shown_answers(bs4.BeautifulSoup(f"<article>{html}</article>", "html.parser"))

    assert told(box) == []
    assert told(f"{box}<p>{WHY}</p>") == [WHY]


def numbers_in_code(path: Path) -> set[float]:
    """Every number that a Python file, or the code of a notebook, spells out."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    return {
        float(node.value)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and type(node.value) in (int, float)
    }


def particular(value: float) -> bool:
    """Whether a number can hardly stand for anything else."""
    digits = f"{value:.15g}".replace(".", "").strip("0")
    return value not in settings() and len(digits) >= (5 if value.is_integer() else 2)


PARTICULAR = {float(v) for v in constants().values()} | {*RUN4_CORES}
PARTICULAR |= {v for row in LEADERBOARD.values() for v in row if isinstance(v, float)}
PARTICULAR |= {v for row in BEYOND.values() for v in (row.minutes, row.val_bpb, *row.cores)}
PARTICULAR = {value for value in PARTICULAR if particular(value)}


@pytest.mark.parametrize(
    "path",
    [*sorted((ROOT / "nanogpt2").rglob("*.py")), *(ROOT / "scripts").glob("*.py"), *notebooks()],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_reported_numbers_are_typed_in_one_file(path: Path) -> None:
    assert {10_949.46713, 0.25851, 0.256525, 0.0062, 0.71854, 10.5} <= PARTICULAR
    assert path.name == "reported.py" or not numbers_in_code(path) & PARTICULAR


PAGES = sorted(path for path in BOOK.rglob("*.md") if "_static" not in path.parts)
"""what people wrote; the card of the book's model is printed by the command that makes it"""


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_pages_have_no_typed_measurements(path: Path) -> None:
    assert unmarked_numbers(path.read_text(encoding="utf-8")) == []
