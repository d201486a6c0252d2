"""``report.html`` and ``report.md`` of a run, from the files that its stages left.

The page is one file with nothing to fetch: charts are inline SVG, the style is in the head, light
and dark follow the reader's system. ``python -m nanogpt2.reporting.report RUN`` writes both again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2

from nanogpt2.errors import UserError, run_command
from nanogpt2.files import atomic_write, named_path
from nanogpt2.outlook import duration
from nanogpt2.reported import GPT2_CORE
from nanogpt2.reporting.run import Run, load_run
from nanogpt2.settings import flat

CURVES = (
    ("loss", "Training loss", "nats per token", True, "Each step's batch, pale, and its average."),
    ("val_bpb", "Validation", "bits per byte", False, "On documents that training never saw."),
    ("lr", "Learning rate", "of its peak", False, "The schedule that every group follows."),
    ("grad_norm", "Gradient", "norm", True, "Over all parameters, before the update."),
    ("tokens_per_second", "Speed", "tokens/s", True, "Evaluations are not counted."),
)
"""key in metrics.jsonl, title, unit, whether steps are noisy, caption"""

_DAMAGED = (
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    jinja2.TemplateError,
)
"""what figures of the wrong kind raise on their way to the page"""


def number(value: Any) -> str:
    """A value as the report shows it: whole numbers with commas, others with four digits."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(number(part) for part in value)
    return str(value)


def steps_done(run: Run) -> int:
    """Of the training as it ended; of one that goes on, those it is to have."""
    planned = run.length.get("length", {}).get("steps", run.config["dial"]["iterations"])
    return int(run.training.get("step", planned))


def headline(run: Run) -> list[dict[str, str]]:
    """The figures on top of the page; one that was not measured is left out."""
    dial = run.config.get("dial", {})
    figures: list[tuple[str, str, str]] = []
    if "val_bpb" in run.evaluation:
        figures.append(("validation", f"{run.evaluation['val_bpb']:.4f}", "bits per byte"))
    if "core" in run.core:
        figures.append(("CORE", f"{run.core['core']:.4f}", f"GPT-2: {GPT2_CORE:.4f}"))
    training = run.training
    if run.timed is not None:
        figures.append(("training", duration(run.timed), "without the first 10 steps"))
    elif "seconds" in training:
        figures.append(("training", duration(training["seconds"]), ""))
    if training.get("tokens_per_second"):
        figures.append(("speed", f"{training['tokens_per_second']:,.0f}", "tokens/s"))
    if training.get("mfu"):
        figures.append(("use of the machine", f"{100 * training['mfu']:.1f}", "% MFU"))
    if dial:
        steps = steps_done(run)
        tokens = steps * dial["batch_tokens"]
        figures += [
            ("parameters", f"{dial['parameters']['total']:,}", ""),
            ("steps", f"{steps:,}", f"of {dial['batch_tokens']:,} tokens"),
            ("tokens", f"{tokens:,}", ""),
            ("arithmetic", f"{tokens * dial['flops_per_token']:.3e}", "FLOPs"),
        ]
    return [{"label": label, "value": value, "unit": unit} for label, value, unit in figures]


def charts(run: Run) -> list[dict[str, Any]]:
    """The curves that the metrics hold, each with its caption and its words for the blind."""
    from nanogpt2.reporting.charts import Series, line_chart, smooth  # they need matplotlib

    drawn = []
    for key, title, unit, noisy, caption in CURVES:
        points = run.points(key)
        if len(points) < 2:
            continue
        alt = describe(title, unit, points)
        series = [Series(title, points)]
        if noisy:
            series = [Series("each step", points, raw=True), Series(title, smooth(points))]
        svg = line_chart(title, series, "step", unit, alt, f"chart-{key}")
        drawn.append({"title": title, "svg": svg, "caption": caption})
    return drawn


def describe(title: str, unit: str, points: Sequence[tuple[float, float]]) -> str:
    """What a curve shows, in a sentence: where it starts, ends and is lowest or highest."""
    values = [value for _, value in points]
    (first, start), (last, end) = points[0], points[-1]
    return (
        f"{title} over steps {first:,} to {last:,}: starts at {start:.4g} {unit}, "
        f"ends at {end:.4g}; lowest {min(values):.4g}, highest {max(values):.4g}."
    )


def curve_table(run: Run, rows: int = 12) -> dict[str, Any] | None:
    """About ``rows`` of the records as text, the first and the last among them."""
    present = {key: f"{title}, {unit}" for key, title, unit, *_ in CURVES if run.points(key)}
    if not present:
        return None
    last = len(run.metrics) - 1
    picked = sorted({round(index * last / max(rows - 1, 1)) for index in range(rows)})
    # validation is measured at few steps: show those rather than rows without it
    measured = [i for i, record in enumerate(run.metrics) if record.get("val_bpb") is not None]
    if 2 < len(measured) <= 2 * rows:
        picked = measured
    records = [run.metrics[index] for index in picked]
    cells = [
        [f"{r['step']:,}", *("" if r.get(key) is None else number(r[key]) for key in present)]
        for r in records
    ]
    return {"header": ["step", *present.values()], "rows": cells}


def core_part(run: Run) -> dict[str, Any] | None:
    """CORE and its tasks, with what a careful reader should know of the comparison."""
    if "core" not in run.core:
        return None
    from nanogpt2.evals.core.report import verdict  # torch and matplotlib, where there is a CORE
    from nanogpt2.reporting.charts import core_chart

    sentence = (
        f"{verdict(run.core)} It is the mean over tasks of accuracy with chance taken out "
        "(DCLM, arXiv 2406.11794)."
    )
    return {"sentence": sentence, "tasks": run.core["tasks"], "figure": core_chart(run.core)}


def play_part(run: Run) -> dict[str, str]:
    """The page of ``nanogpt2.export --to web`` in the run's folder, and the command for it.

    Given in that folder: the report is the same wherever the run lies.
    """
    page = "play/index.html"
    command = "python -m nanogpt2.export --checkpoint . --to web --out play"
    return {"page": page if (run.folder / page).is_file() else "", "command": command}


def sections(run: Run) -> list[dict[str, Any]]:
    """The tables of the report: the run's figures, its configuration, its machine."""
    dial, config = run.config.get("dial", {}), run.config
    by_clock = run.length.get("length", {})
    figures = [
        (f"parameters: {name.replace('_', ' ')}", count)
        for name, count in dial.get("parameters", {}).items()
    ]
    if dial:
        tokens = steps_done(run) * dial["batch_tokens"]
        figures += [
            ("FLOPs per token", dial["flops_per_token"]),
            ("FLOPs in all", tokens * dial["flops_per_token"]),
            ("learning-rate scale", dial["lr_scale"]),
            ("Muon's weight decay at the start", dial["weight_decay"]),
        ]
    figures += [(name.replace("_", " "), value) for name, value in run.training.items()]
    figures += [
        (f"evaluation: {name.replace('_', ' ')}", value) for name, value in run.evaluation.items()
    ]
    settings: dict[str, Any] = {
        key: config[key] for key in ("recipe", "settings", "data", "seed") if key in config
    }
    machine = config.get("machine", {})
    names = {"asked": "the recipe's steps", "steps": "steps chosen", "after": "chosen after steps"}
    length = [(names.get(name, name.replace("_", " ")), v) for name, v in by_clock.items()]
    walls = {name: seconds for name, seconds in run.stages.items() if name != "report"}
    clock = [(f"stage: {name}", duration(seconds)) for name, seconds in walls.items()]
    if clock:
        clock.append(("all stages", duration(sum(walls.values()))))
    if run.timed is not None:
        clock.insert(0, ("steps after the first 10, without evaluations", duration(run.timed)))
    tables = [
        ("clock", "Time", "", clock),
        ("length", "Length, set by the clock", "", length),
        ("figures", "Figures of the run", "", figures),
        ("configuration", "Configuration", "Every field", list(flat(settings))),
        ("machine", "Machine", "", list(flat(machine))),
    ]
    return [
        {"id": identity, "title": title, "fold": fold, "rows": rows}
        for identity, title, fold, rows in tables
        if rows
    ]


def templates() -> jinja2.Environment:
    """The report's templates, with their filters."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("nanogpt2.reporting"),
        autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cell": _cell, "number": number}
    return environment


def _cell(text: Any) -> str:
    """Text for a cell of a Markdown table: one line, without what ends a cell or begins a tag."""
    one_line = " ".join(str(text).split())
    return one_line.replace("\\", "\\\\").replace("|", "\\|").replace("<", "\\<")


def render(run: Run) -> dict[str, str]:
    """The text of ``report.html`` and ``report.md``."""
    config = run.config
    settings = config.get("sampling", {})
    how = ", ".join(f"{name.replace('_', ' ')} {number(v)}" for name, v in settings.items())
    facts = {
        "title": f"A run of nanogpt2: {config.get('name', run.folder.name)}",
        "lead": config.get("summary", ""),
        "headline": headline(run),
        "charts": charts(run),
        "table": curve_table(run),
        "samples": run.samples,
        "samples_note": "What the trained model writes"
        + (f" ({how})." if how else ".")
        + " The bold part is its prompt; nothing was picked.",
        "on_the_way": [record for record in run.metrics if record.get("samples")],
        "play": play_part(run),
        "core": core_part(run),
        "sections": sections(run),
        "credits": config.get("credits", []),
        "command": config.get("command", "python -m nanogpt2.speedrun"),
        "version": metadata.version("nanogpt2"),
    }
    return {
        name: templates().get_template(f"{name}.j2").render(facts)
        for name in ("report.html", "report.md")
    }


def write_report(folder: Path | str) -> list[Path]:
    """Write both reports of the run in ``folder``, each whole or not at all; returns their paths.

    Raises UserError when ``folder`` is not the folder of a run, or its files are damaged.
    """
    run = load_run(folder)
    try:
        # the odd bytes of a folder's name show as escapes
        pages = {k: text.encode("utf-8", "backslashreplace") for k, text in render(run).items()}
    except _DAMAGED as error:
        raise UserError(
            f"the files in {folder} are not those of a run ({error!r}); "
            "call the speedrun again, which makes anew what was damaged"
        ) from error
    paths = []
    for name, page in pages.items():
        with atomic_write(run.folder / name) as temporary:
            temporary.write_bytes(page)
        paths.append(run.folder / name)
    return paths


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the reports of a run again."""
    parser = argparse.ArgumentParser(
        prog="python -m nanogpt2.reporting.report", description=__doc__
    )
    parser.add_argument("run", type=named_path, help="folder of a run, such as runs/laptop")
    for path in write_report(parser.parse_args(arguments).run):
        print(path)
    return 0


if __name__ == "__main__":
    run_command(main)
