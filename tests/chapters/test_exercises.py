"""Every exercise of every chapter: its stub fails its check, its solution passes it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

CHAPTERS = sorted((Path(__file__).resolve().parents[2] / "chapters").glob("*.ipynb"))


def tagged(notebook: Path) -> list[tuple[set[str], str]]:
    """(tags, source) of each code cell."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [
        (set(cell["metadata"].get("tags", [])), "".join(cell["source"]))
        for cell in cells
        if cell["cell_type"] == "code"
    ]


def exercises() -> list[Any]:
    """One case for each exercise."""
    cases = []
    for notebook in CHAPTERS:
        tags = {tag for tags, _ in tagged(notebook) for tag in tags}
        numbers = sorted(re.findall(r"exercise-stub-(\d+)", " ".join(sorted(tags))))
        cases += [pytest.param(notebook, n, id=f"{notebook.stem}-{n}") for n in numbers]
    return cases


@pytest.fixture(autouse=True)
def in_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOGPT2_LAB", "static")
    monkeypatch.chdir(CHAPTERS[0].parent)


def verdict(names: dict[str, Any], source: str) -> Any:
    """Run a cell and return the value of its last line."""
    *body, last = source.rstrip().splitlines()
    exec("\n".join(body), names)
    return eval(last, names)


@pytest.mark.parametrize(("notebook", "number"), exercises())
def test_the_stub_fails_and_the_solution_passes(notebook: Path, number: str) -> None:
    cells = tagged(notebook)
    names: dict[str, Any] = {}
    for tags, source in cells:
        if tags & {"parameters", "setup", "exercise-setup"}:
            exec(source, names)
    cell = {tag: source for tags, source in cells for tag in tags if tag.endswith(f"-{number}")}
    exec(cell[f"exercise-stub-{number}"], names)
    assert not verdict(names, cell[f"exercise-check-{number}"])
    assert verdict(names, cell[f"exercise-solution-{number}"])


@pytest.mark.parametrize("notebook", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_has_three_to_five_exercises_one_for_a_gpu(notebook: Path) -> None:
    text = notebook.read_text(encoding="utf-8")
    assert 3 <= len(set(re.findall(r"exercise-stub-(\d)", text))) <= 5
    assert "GPU)" in text
