"""The parts of pages that the build writes: results, costs of the chapters, environment."""

from __future__ import annotations

import platform
import re
import statistics
from importlib import metadata
from pathlib import Path

from nanogpt2.export import web
from nanogpt2.files import read_json
from nanogpt2.lab.records import Record, recorded
from nanogpt2.reporting.figures import COLOURS, figure, style, svg
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


def curve_lines(entry: Record) -> dict[str, list[tuple[float, float]]]:
    """Lines of the record's curve: held-out bits per byte, else the loss; means over seeds."""
    keys = [k for point in entry.curve for k in point if k.startswith(("bpb", "val_bpb"))]
    wanted = list(dict.fromkeys(keys)) or ["loss"]
    found: dict[str, dict[float, list[float]]] = {}
    for point in entry.curve:
        for key in wanted:
            if key in point and point.get("step"):
                name = re.sub(r"[ _]seed[ _]?\d+$", "", key)
                name = re.sub(r"^bpb[ _]", "", name)
                found.setdefault(name, {}).setdefault(point["step"], []).append(point[key])
    lines = {
        name: [(step, statistics.fmean(values)) for step, values in steps.items()]
        for name, steps in found.items()
    }
    return {name: points for name, points in lines.items() if len(points) > 1}


def _curve(entry: Record) -> str:
    """The record's curves as SVG; of many, those that end lowest, highest and the first."""
    lines = curve_lines(entry)
    if not lines:
        return ""
    if len(lines) > len(COLOURS):
        ranked = sorted(lines, key=lambda name: lines[name][-1][1])
        shown = [next(iter(lines)), ranked[0], ranked[1], ranked[-2], ranked[-1]]
        lines = {name: lines[name] for name in dict.fromkeys(shown)}
    fig, axes = figure(6.4, 2.8)
    is_loss = list(lines) == ["loss"]
    with style():
        for points in lines.values():
            axes.plot(*zip(*points, strict=True))
        axes.set(xlabel="step", ylabel="loss, nats per token" if is_loss else "bits per byte")
        if len(lines) > 1:
            fig.legend(axes.lines, list(lines), loc="outside upper left", ncols=2, fontsize=9)
    ends = "; ".join(
        f"{name} {points[0][1]:.4g} at step {points[0][0]:g}, {points[-1][1]:.4g} at step "
        f"{points[-1][0]:g}"
        for name, points in lines.items()
    )
    return f'<div class="ng ng-figure">{svg(fig, f"{entry.name} by step: {ends}")}</div>'


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
