"""The parts of pages that the build writes: results, costs of the chapters, environment."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

from nanogpt2.files import read_json
from nanogpt2.lab.records import Record, recorded
from nanogpt2.lab.style import COLOURS, DASHES, figure, svg
from scripts.chapters import costs_file
from scripts.paths import RESULTS, document, notebooks

SHOWN: tuple[str, ...] = (
    "torch",
    "numpy",
    "pyarrow",
    "tiktoken",
    "rustbpe",
    "safetensors",
    "matplotlib",
)
SHOWN += ("jupyter-book", "sphinx", "myst-nb", "papermill")
REPOSITORY_RESULTS = "book/results"


def execution_table() -> str:
    """Seconds and memory of every chapter, from the runs whose outputs the book shows."""
    rows = ["| chapter | seconds | peak memory | depth | scale | cores | run on (UTC) |"]
    rows.append("| --- | --: | --: | --: | --- | --: | --- |")
    total = 0.0
    for notebook in notebooks():
        costs = read_json(costs_file(notebook))
        total += costs["seconds"]
        given = costs["parameters"]
        rows.append(
            f"| {{doc}}`/{document(notebook)}` | {costs['seconds']:.0f} | "
            f"{costs['peak_bytes'] / 2**30:.1f} GiB | {given['DEPTH']} | {given['SCALE']} | "
            f"{costs['cores']} | {costs['finished']} |"
        )
    if len(rows) == 2:
        return "No chapter has been run yet."
    rows.append(f"| together | {total:.0f} | | | | | |")
    return "\n".join(rows)


def environment_table() -> str:
    """Versions of what the chapters and the pages were made with."""
    rows = ["| package | version |", "| --- | --- |", f"| Python | {platform.python_version()} |"]
    rows += [f"| {name} | {metadata.version(name)} |" for name in ("nanogpt2", *SHOWN)]
    return "\n".join(rows)


def results_page(repository: str, branch: str) -> str:
    """Every recorded run: what was run, where, what came out, and its curve."""
    records = [recorded(path.stem) for path in sorted(RESULTS.glob("*.json"))]
    if not records:
        return "No experiment has been recorded yet."
    rows = ["| record | device | tokens | seconds | seed |", "| --- | --- | --: | --: | --: |"]
    for entry in records:
        rows.append(
            f"| [{entry.name}](#{anchor(entry.name)}) | {entry.device} | {entry.tokens:,} | "
            f"{entry.seconds:,.1f} | {entry.seed} |"
        )
    return "\n\n".join(["\n".join(rows), *(_record(r, repository, branch) for r in records)])


def anchor(name: str) -> str:
    """The place of a record on the results page."""
    return "record-" + name.replace("_", "-").replace(".", "-")


def _record(entry: Record, repository: str, branch: str) -> str:
    file = f"{repository}/blob/{branch}/{REPOSITORY_RESULTS}/{entry.name}.json"
    lines = [
        f"({anchor(entry.name)})=",
        f"## {entry.name}",
        f"{entry.note}\n" if entry.note else "",
        _curve(entry),
        "| | |\n| --- | --- |",
    ]
    facts = {
        "command": f"`{entry.command}`",
        "device": entry.device,
        "torch, nanogpt2": f"{entry.torch}, {entry.version}",
        "commit": f"`{entry.commit[:12]}`",
        "configuration": f"SHA-256 `{entry.configuration_hash[:16]}`, all in [the file]({file})",
        "seed": str(entry.seed),
        "tokens": f"{entry.tokens:,}",
        "seconds": f"{entry.seconds:,.1f}",
    }
    facts |= {str(k): _short(v) for k, v in entry.results.items()}
    lines[-1] += "".join(f"\n| {name} | {value} |" for name, value in facts.items())
    return "\n\n".join(line for line in lines if line)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, int):
        return f"{value:,}"
    text = str(value)
    return f"`{text}`" if len(text) <= 60 else "in the file"


def _curve(entry: Record) -> str:
    """The record's curve as SVG: held-out bits per byte if it has them, else the loss."""
    names = [name for name in ("bpb", "val_bpb", "loss") if any(name in p for p in entry.curve)]
    if not names or len(entry.curve) < 2:
        return ""
    name = names[0]
    points = [(p["step"], p[name]) for p in entry.curve if name in p and "step" in p]
    if len(points) < 2:
        return ""
    fig, axes = figure(6.4, 2.6)
    axes.plot(*zip(*points, strict=True), color=COLOURS[0], linestyle=DASHES[0])
    axes.set_xlabel("step")
    axes.set_ylabel("bits per byte" if "bpb" in name else "loss, nats per token")
    first, last = points[0], points[-1]
    alt = (
        f"{name} of {entry.name} by step: {first[1]:.4g} at step {first[0]:g}, "
        f"{last[1]:.4g} at step {last[0]:g}"
    )
    return f'<div class="ng ng-figure">{svg(fig, alt)}</div>'


def write(folder: Path, name: str, text: str) -> None:
    """One generated part."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text + "\n", encoding="utf-8")
