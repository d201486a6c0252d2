"""Where the book's sources are and where its build goes."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
CHAPTERS = ROOT / "chapters"
RESULTS = BOOK / "results"

BUILD = ROOT / "_build"
EXECUTED = BUILD / "executed"
"""what papermill wrote: a notebook with its outputs and a JSON with its costs, per chapter"""
VENDOR = BUILD / "vendor"
"""MathJax and widget scripts, as npm gave them"""
SOURCE = BUILD / "src"
"""the tree that Jupyter Book reads"""
HTML = BUILD / "html"


def chapters() -> list[Path]:
    """The chapters in order."""
    return sorted(CHAPTERS.glob("[0-9]*.ipynb"))


def notebooks() -> list[Path]:
    """Everything that is executed: the chapters, then pages of the book that are notebooks."""
    return [*chapters(), *sorted(BOOK.glob("*.ipynb"))]


def document(notebook: Path) -> str:
    """The notebook's page, as tables of contents name it: ``chapters/05_rotary_positions``."""
    return str(notebook.relative_to(ROOT).with_suffix(""))
