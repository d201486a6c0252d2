"""The parts of the one table, and how each is run."""

from __future__ import annotations

import importlib
from typing import Any

from benchmarks.table import Row
from nanogpt2.training.metrics import peak_resident

LAPTOP = {"recipe_name": "laptop", "depth": 4, "tokens": 256, "rows": 16}
PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "step": ("step", {}),
    "laptop": ("step", LAPTOP),
    "optim": ("muon", {}),
    "attention": ("windows", {"lengths": (2048,)}),
    "loss": ("loss", {}),
    "data": ("data", {}),
    "core": ("core", {"max_per_task": 10, "tasks": ["copa", "winograd", "lambada_openai"]}),
    "decode": ("decode", {}),
}
"""part -> (module of this folder, what its ``measure`` is given)"""


def run_part(part: str, more: dict[str, Any]) -> list[Row]:
    """The rows of one part, and the peak memory of the process that took them."""
    name, arguments = PARTS[part]
    found = importlib.import_module(f"benchmarks.{name}").measure(**arguments, **more)
    rows = [Row(part, row.what, row.value, row.unit) for row in map(as_row, found)]
    peak = peak_resident() / 1e9
    return [*rows, Row(part, "peak memory of this part", peak, "GB")]


def as_row(found: Row | dict[str, Any]) -> Row:
    """Of what a benchmark returned, in either form."""
    if isinstance(found, Row):
        return found
    ratio = f" ({found['ratio']:.2f} x)" if "ratio" in found else ""
    return Row(found["part"], found["what"] + ratio, found["value"], found["unit"])
