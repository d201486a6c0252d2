"""The parts of pages that the build writes: results, costs of the chapters, environment."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

from nanogpt2.export import web
from nanogpt2.files import read_json
from nanogpt2.lab.records import Record, recorded
from nanogpt2.reporting.figures import plotting, svg
from scripts.chapters import costs_file
from scripts.paths import BOOK, RESULTS, document, notebooks

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
MOST, MOST_COLUMNS = 120, 6
"""characters of a cell, columns of a table that a page can show"""


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
    nested = {k: v for k, v in entry.results.items() if isinstance(v, (dict, list))}
    facts |= {k: _short(v) for k, v in entry.results.items() if k not in nested}
    lines[-1] += "".join(f"\n| {name} | {value} |" for name, value in facts.items())
    lines += [
        _table(name, value)
        for name, value in entry.results.items()
        if isinstance(value, (dict, list))
    ]
    return "\n\n".join(line for line in lines if line)


def _short(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, int):
        return f"{value:,}"
    text = str(value)
    return text if len(text) <= MOST else "in the file"


def _table(name: str, value: dict | list) -> str:
    """A nested result as a folded table; empty where it has no shape that a page could show."""
    title = name.replace("_", " ")
    if isinstance(value, list):
        if not value or not all(isinstance(row, dict) and "what" in row for row in value):
            return ""
        columns = ["part", "what", "value", "unit"]
        rows = [[_short(row.get(c, "")) for c in columns] for row in value]
        return _folded(title, columns, rows)
    kinds = {type(inner) for inner in value.values()}
    if kinds == {dict}:
        inner = {k: v for row in value.values() for k, v in row.items()}
        if len(inner) <= MOST_COLUMNS and not any(
            isinstance(v, (dict, list)) for v in inner.values()
        ):
            rows = [[k, *(_short(row.get(c, "")) for c in inner)] for k, row in value.items()]
            return _folded(title, ["", *map(str, inner)], rows)
    elif kinds == {list}:
        longest = max(len(row) for row in value.values())
        numbers = all(isinstance(x, (int, float)) for row in value.values() for x in row)
        if longest <= MOST_COLUMNS and numbers:
            rows = [[k, *map(_short, row)] for k, row in value.items()]
            return _folded(title, ["", *(str(i) for i in range(longest))], rows)
    elif kinds and not kinds & {dict, list}:
        return _folded(title, ["", ""], [[k, _short(v)] for k, v in value.items()])
    return ""


def _folded(title: str, columns: list[str], rows: list[list[str]]) -> str:
    """A table in a dropdown, numbers to the right."""
    sides = ["---"] + [
        "--:" if all(_is_number(row[i]) for row in rows) else "---" for i in range(1, len(columns))
    ]
    lines = [columns, sides, *rows]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f":::{{dropdown}} {title}\n{text}\n:::"


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", ""))
    except ValueError:
        return not text
    return True


def curve(entry: Record) -> tuple[str, list[tuple[float, float]]]:
    """What the record followed by step, and its points: held-out bits per byte, else the loss."""
    for name, key in (("bits per byte", "val_bpb"), ("loss, nats per token", "loss")):
        points = [(p["step"], p[key]) for p in entry.curve if p.get("step") and key in p]
        if len(points) > 1:
            return name, points
    return "", []


def _curve(entry: Record) -> str:
    """The record's curve as SVG; empty where it has none."""
    name, points = curve(entry)
    if not points:
        return ""
    with plotting(6.4, 2.8) as (fig, axes):
        axes.plot(*zip(*points, strict=True))
        axes.set(xlabel="step", ylabel=name)
    (first, before), (last, after) = points[0], points[-1]
    ends = f"{before:.4g} at step {first:g}, {after:.4g} at step {last:g}"
    return f'<div class="ng ng-figure">{svg(fig, f"{entry.name}, {name}: {ends}")}</div>'


def play_part() -> str:
    """The box that becomes the tool of ``play.md``, and its scripts: on this page alone."""
    size = web.megabytes(BOOK / "_static" / "model")
    return f"""```{{raw}} html
<link rel="stylesheet" href="../_static/play/play.css">
<div class="ng-play" data-model="../_static/model" data-megabytes="{size}">
<p>This part needs JavaScript: the model computes in your browser.</p>
</div>
{web.script_tags("../_static/play")}
```"""


def write(folder: Path, name: str, text: str) -> None:
    """One generated part."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text + "\n", encoding="utf-8")
