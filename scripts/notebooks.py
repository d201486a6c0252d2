"""What a committed notebook must be: clean, short-celled, with parameters and a version.

python -m scripts.notebooks            name what is wrong with any notebook of the book
"""

from __future__ import annotations

import ast
import functools
import json
import re
import statistics
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from nanogpt2.errors import run_command
from nanogpt2.recipes import RECIPES
from scripts.badges import wrong_badges
from scripts.paths import ROOT, notebooks
from scripts.presentation import open_answers

MEDIAN_LINES, MAX_LINES, MAX_COLUMNS = 8, 30, 79
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
METADATA = {"kernelspec", "language_info"}
PARAMETERS = {"DEPTH", "SCALE", "SEED"}
CHECKED = "lab.check_parameters(DEPTH, SCALE, SEED)"
# what somebody measured, as far as a pattern can tell: a number with a unit of measurement ...
UNIT = (
    r"\\?%|×|(?:bits per byte|bpb|ms|milliseconds|seconds|minutes|hours|days|dollars|cents|times|"
    r"percent|k?Wh?|[MGT]i?B|items|[mb]illion|tokens/s|TFLOP/s|FLOPs|an hour)\b"
)
NUMBER = r"(?<![\w.,^/=-])\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?"
MEASURED = re.compile(rf"{NUMBER}(?=\s*(?:{UNIT}))")
# ... or a decimal, or a large number that is not round
LARGE = re.compile(rf"{NUMBER}(?![\w/]|\.\d)")
# numbers that may be typed: minutes and data of exercises, versions, parts of a text, model names
EXERCISE = re.compile(r"\*(?:Easy|Medium|Hard),")
NAMED = re.compile(
    r"(?:Section|Python|PyTorch(?: from)?|torch|CC BY|Apache|OFL|BSD|version|GPT|OLMo|Llama|Gemma|"
    r"Qwen)[ -]*\d[\d.]*"
)
UNSPOKEN = re.compile(  # code, formulas, links, roles, HTML
    r"```.*?```|\$\$.*?\$\$|\$[^$\n]+\$|\{[\w:]+\}`[^`]*`|`[^`\n]*`|\]\([^)]*\)|<[^>\n]*>|"
    r"\{\{[^}]*\}\}",
    re.S,
)
BADGE = re.compile(r"ng-(?:live|recorded|reported)|\{\{ *(?:live|recorded|reported) *\}\}")


def source(cell: dict[str, Any]) -> str:
    """A cell's text."""
    return "".join(cell["source"])


def problems(path: Path) -> list[str]:
    """Everything wrong with a notebook, in sentences; empty when it is fit to commit."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = notebook["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    found = [*_clean(notebook, code), *_parameters(code), *_begin(code), *_lengths(code)]
    with suppress(SyntaxError):
        found += wrong_badges(source(cell) for cell in code)
        found += open_answers([(source(c), set(c["metadata"].get("tags", []))) for c in code])
    for cell in cells:
        if cell["cell_type"] == "markdown":
            found += unmarked_numbers(source(cell))
    first = source(cells[0]) if cells else ""
    if not first.startswith("# "):
        found.append("the first cell must begin with the title, '# ...'")
    return [f"{path.name}: {problem}" for problem in found]


def _clean(notebook: dict[str, Any], code: list[dict[str, Any]]) -> list[str]:
    found = []
    if any(cell["outputs"] or cell["execution_count"] is not None for cell in code):
        found.append("it holds outputs or execution counts; clear them before committing")
    if extra := set(notebook["metadata"]) - METADATA:
        found.append(f"its metadata holds {', '.join(sorted(extra))}; keep {sorted(METADATA)}")
    if notebook["metadata"].get("kernelspec") != KERNEL:
        found.append("its kernel must be the plain 'python3'")
    if notebook["metadata"].get("language_info", {}).keys() - {"name"}:
        found.append("its language_info must hold the name alone")
    names = [cell.get("id") for cell in notebook["cells"]]
    if None in names or len(set(names)) != len(names):
        found.append("each cell needs an id of its own")
    return found


def _parameters(code: list[dict[str, Any]]) -> list[str]:
    tagged = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        return [f"{len(tagged)} cells are tagged 'parameters'; exactly one must be"]
    assigned = {
        target.id
        for node in ast.parse(source(tagged[0])).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    missing = PARAMETERS - assigned
    return [f"the parameters cell lacks {', '.join(sorted(missing))}"] if missing else []


def _begin(code: list[dict[str, Any]]) -> list[str]:
    """The first code cells must check the package's version, and the reader's parameters."""
    nodes: list[ast.AST] = []
    for cell in code[:3]:
        with suppress(SyntaxError):
            nodes += ast.walk(ast.parse(source(cell)))
    asserted = [ast.unparse(node.test) for node in nodes if isinstance(node, ast.Assert)]
    called = [ast.unparse(node) for node in nodes if isinstance(node, ast.Call)]
    found = []
    if not any("nanogpt2.__version__" in test for test in asserted):
        found.append("its first cells must assert that nanogpt2.__version__ is the book's version")
    if CHECKED not in called:
        found.append(f"its first cells must call {CHECKED}")
    return found


def _lengths(code: list[dict[str, Any]]) -> list[str]:
    if not code:
        return ["it has no code"]
    lengths = [len(source(cell).splitlines()) for cell in code]
    found = []
    if (median := statistics.median(lengths)) > MEDIAN_LINES:
        found.append(f"code cells have a median of {median:g} lines; at most {MEDIAN_LINES}")
    for cell, length in zip(code, lengths, strict=True):
        start = source(cell).splitlines()[0] if length else "(empty)"
        if length > MAX_LINES:
            found.append(f"the cell {start!r} has {length} lines; at most {MAX_LINES}")
        if any(len(line) > MAX_COLUMNS for line in source(cell).splitlines()):
            found.append(f"the cell {start!r} has a line of over {MAX_COLUMNS} columns")
    return found


@functools.cache
def settings() -> frozenset[float]:
    """Every number that stands in a recipe: those are choices, not measurements."""

    def numbers(value: Any) -> Iterator[float]:
        if isinstance(value, Mapping):
            for inner in value.values():
                yield from numbers(inner)
        elif isinstance(value, (list, tuple)):
            for inner in value:
                yield from numbers(inner)
        elif isinstance(value, (int, float)):
            yield float(value)

    chosen = [recipe.to_dict() | {"record": None} for recipe in RECIPES.values()]
    return frozenset(number for recipe in chosen for number in numbers(recipe))


def unmarked_numbers(markdown: str) -> list[str]:
    """Measured-looking numbers in paragraphs that carry no badge.

    May be typed: whole numbers up to 10,000 without a unit (years, depths, shapes), round ones and
    powers of two, settings of the recipes, what an exercise asks for, versions and names.
    """
    formulas = re.compile(r"```.*?```|\$\$.*?\$\$", re.S)
    found = []
    for paragraph in re.split(r"\n\s*\n", formulas.sub("", markdown)):
        if BADGE.search(paragraph) or EXERCISE.match(paragraph.lstrip()):
            continue
        if paragraph.startswith("# "):  # a title: its chapter asserts what it names
            continue
        prose = NAMED.sub(" ", UNSPOKEN.sub(" ", paragraph))
        wrong = {match.group(0): None for match in MEASURED.finditer(prose)}
        wrong |= {m.group(0): None for m in LARGE.finditer(prose) if _looks_measured(m.group(0))}
        found += [
            f"{number!r} looks measured and its paragraph has no badge; print it from the run"
            for number in wrong
        ]
    return found


def _looks_measured(written: str) -> bool:
    value = float(written.replace(",", ""))
    if value in settings():
        return False
    if value != int(value):
        return True
    digits = str(int(value)).rstrip("0")
    return value >= 10_000 and len(digits) > 1 and int(value) & (int(value) - 1) != 0


def main() -> int:
    found = [problem for path in notebooks() for problem in problems(path)]
    for page in sorted((ROOT / "book").rglob("*.md")):
        found += [
            f"{page.name}: {problem}"
            for problem in unmarked_numbers(page.read_text(encoding="utf-8"))
        ]
    print("\n".join(found) or "every notebook and page is fit to commit")
    return 1 if found else 0


if __name__ == "__main__":
    run_command(main)
