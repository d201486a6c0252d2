"""The README's picture and sample, drawn from a real run so that nobody types a number.

``python -m scripts.picture RUN -o book/_static/laptop-run.svg --readme README.md``
draws the validation curve and rewrites the README between its two markers.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from nanogpt2.errors import UserError, run_command
from nanogpt2.files import atomic_write, named_path
from nanogpt2.outlook import duration
from nanogpt2.reporting.charts import Series, line_chart
from nanogpt2.reporting.report import describe, steps_done, templates
from nanogpt2.reporting.run import Run, load_run
from scripts.lines import rewrite

SAMPLE_CHARACTERS = 420


def picture(run: Run) -> tuple[str, str]:
    """(SVG, alt text) of the run's validation bits per byte; UserError when it has none."""
    points = run.points("val_bpb")
    if len(points) < 2:
        raise UserError(
            f"{run.folder} has no validation curve yet; let the speedrun finish, then draw it"
        )
    alt = describe("Validation", "bits per byte", points)
    curve = [Series("validation", points)]
    look = "background: var(--paper); color: var(--soft); font-family: system-ui, sans-serif"
    colours = templates().get_template("theme.css.j2").render(root="svg")
    css = f"{colours}svg {{ {look} }}"
    chart = line_chart("Validation of a run", curve, "step", "bits per byte", alt, "run", css)
    return f"{chart}\n", alt


def passage(run: Run, image: str, alt: str) -> str:
    """The README's lines about the run: picture, figures, and the start of its first sample."""
    dial, machine = run.config["dial"], run.config.get("machine", {})
    tokens = steps_done(run) * dial["batch_tokens"]
    facts = f"{dial['parameters']['total']:,} parameters, {tokens:,} tokens"
    if "seconds" in run.training:
        facts += f", {duration(run.training['seconds'])} of training"
    if "processor" in machine:
        facts += f" on {machine.get('cores', '?')} cores of {machine['processor']}"
    lines = [f"![{alt}]({image})", "", f"{facts[0].upper()}{facts[1:]}."]
    if "val_bpb" in run.evaluation:
        lines[-1] += (
            f" It ends at **{run.evaluation['val_bpb']:.4f} bits per byte** on held-out text."
        )
    if run.samples:
        text = run.samples[0]["prompt"] + run.samples[0]["text"]
        if len(text) > SAMPLE_CHARACTERS:
            text = text[:SAMPLE_CHARACTERS].rsplit(" ", 1)[0] + " ..."
        quoted = "\n".join(f"> {line}".rstrip() for line in text.splitlines())
        lines += ["", "And it writes:", "", quoted]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the picture, and with ``--readme`` rewrite that file's passage."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.picture", description=__doc__.split("\n")[0]
    )
    parser.add_argument("run", type=named_path, help="folder of a run, such as runs/laptop")
    parser.add_argument(
        "-o", "--output", type=named_path, required=True, help="the SVG file to write"
    )
    parser.add_argument(
        "--readme", type=named_path, help="rewrite this file's passage about the run"
    )
    options = parser.parse_args(arguments)
    run = load_run(options.run)
    svg, alt = picture(run)
    with atomic_write(options.output) as temporary:
        temporary.write_text(svg, encoding="utf-8")
    if options.readme:
        image = os.path.relpath(options.output, options.readme.parent).replace(os.sep, "/")
        rewrite(options.readme, "run", passage(run, image, alt))
    return 0


if __name__ == "__main__":
    run_command(main)
