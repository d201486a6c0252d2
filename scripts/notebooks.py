"""What a committed notebook must be: clean, short-celled, with parameters and a version.

python -m scripts.notebooks            name what is wrong with any notebook of the book
"""

from __future__ import annotations

import ast
import json
import re
import statistics
from contextlib import suppress
from pathlib import Path
from typing import Any

from nanogpt2.errors import run_command
from scripts.paths import ROOT, notebooks

MEDIAN_LINES, MAX_LINES, MAX_COLUMNS = 8, 30, 79
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
METADATA = {"kernelspec", "language_info"}
PARAMETERS = {"DEPTH", "SCALE", "SEED"}
CHECKED = "lab.check_parameters(DEPTH, SCALE, SEED)"
# what somebody measured, as far as a pattern can tell: a decimal with a unit of measurement
MEASURED = re.compile(
    r"(?<![\w.^])\d+\.\d+\s*(?:\\?%|×|(?:bits per byte|bpb|ms|milliseconds|seconds|tokens/s|"
    r"(?:times|percent) (?:faster|slower|cheaper|less|more))\b)"
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


def unmarked_numbers(markdown: str) -> list[str]:
    """Measured-looking numbers in paragraphs that carry no badge."""
    prose = re.sub(r"```.*?```|\$\$.*?\$\$", "", markdown, flags=re.S)
    return [
        f"{match.group(0)!r} looks measured and its paragraph has no badge; print it from the run"
        for paragraph in re.split(r"\n\s*\n", prose)
        if not BADGE.search(paragraph)
        for match in MEASURED.finditer(paragraph)
    ]


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
