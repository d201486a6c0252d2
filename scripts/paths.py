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
    """The notebooks in order."""
    return sorted(CHAPTERS.glob("[0-9]*.ipynb"))
