"""What every benchmark returns, prints and writes: rows, with the machine they were taken on."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One figure."""

    part: str
    what: str
    value: float
    unit: str


def machine() -> dict[str, Any]:
    """What a reader needs in order to compare figures."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        name = models[0] if models else name
    cuda = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if cuda else name,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def report(rows: list[Row], path: str | None = None, title: str = "") -> None:
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
        content = {"machine": machine(), "rows": [asdict(row) for row in rows]}
        Path(path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
