"""What every benchmark returns, prints and writes: rows, with the machine they were taken on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from nanogpt2.files import write_json
from nanogpt2.machines import cores


@dataclass(frozen=True)
class Row:
    """One figure."""

    part: str
    what: str
    value: float
    unit: str


def machine() -> dict[str, Any]:
    """What a reader needs in order to compare figures."""
    # here, so that the lab's drawing libraries are no part of a measured peak
    from nanogpt2.lab.records import describe_device

    return {
        "device": describe_device(),
        "cores": cores(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def report(rows: list[Row], path: Path | str | None = None, title: str = "") -> None:
    """Print ``rows`` as a table and, with ``path``, write them as JSON."""
    table = Table(title=title or None)
    for column in ("part", "what"):
        table.add_column(column)
    table.add_column("value", justify="right")
    table.add_column("unit")
    for row in rows:
        table.add_row(row.part, row.what, f"{row.value:,.4g}", row.unit)
    Console(width=None).print(table)
    if path:
        write_json(Path(path), {"machine": machine(), "rows": [asdict(row) for row in rows]})
