"""``python -m nanogpt2.evals.core``: CORE of a checkpoint or of a Hugging Face model.

Under torchrun each rank asks its share of the examples. Chapter: core.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from nanogpt2.data.bundle import find_bundle
from nanogpt2.errors import UserError, run_command
from nanogpt2.evals.core.bundle import published_scores
from nanogpt2.evals.core.evaluate import CoreEvaluator
from nanogpt2.evals.core.report import Scores, core_table, verdict
from nanogpt2.evals.core.results import CoreResult, is_result
from nanogpt2.evals.core.tasks import PROTOCOLS
from nanogpt2.files import named_path, require_file_place, write_json
from nanogpt2.kernels.precision import good_at_bf16

if TYPE_CHECKING:
    from nanogpt2.training.ranks import Ranks


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m nanogpt2.evals.core",
        description="Ask a model the 22 tasks of CORE (DCLM, arXiv 2406.11794).",
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--checkpoint", type=named_path, metavar="DIR", help="a run or a checkpoint")
    model.add_argument("--hf", metavar="MODEL", help="a Hugging Face causal model: name or folder")
    add = parser.add_argument
    add("--trust-remote-code", action="store_true", help="run the code that comes with --hf")
    add("--tokenizer", type=named_path, metavar="DIR", help="of --checkpoint (default: its own)")
    add("--bundle", type=named_path, metavar="DIR", help="the tasks; fetched and kept if not given")
    add(
        "--protocol",
        default=PROTOCOLS[0],
        choices=PROTOCOLS,
        help="whose way of asking (default nanochat, that of GPT-2's 0.2565)",
    )
    add("--max-per-task", type=int, metavar="N", help="ask at most N examples a task: a sample")
    add("--tasks", metavar="LABELS", help="some tasks only, separated by commas")
    add("--out", type=named_path, metavar="FILE", help="results as JSON, every outcome in them")
    add("--device", default="auto", help="auto, cpu, cuda or mps (default auto)")
    add("--dtype", default="auto", choices=("auto", "float32", "bfloat16"), help="of products")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate, show the table, keep the outcomes."""
    # the command stands on rooms above which the evaluation itself does not reach
    from nanogpt2.reporting.console import Screen
    from nanogpt2.training.ranks import join

    options = parser().parse_args(argv)
    with join(options.device) as ranks:
        if options.out is not None and ranks.is_main:
            check_out(options.out)  # before the hour that it may take
        ranks.share(lambda: str(find_bundle(options.bundle)))  # fetched once, by one rank
        bundle = find_bundle(options.bundle)
        labels = options.tasks
        if labels is not None:
            labels = [label.strip() for label in labels.split(",") if label.strip()]
            if not labels:
                raise UserError("--tasks names no task; give labels separated by commas")
        published = published_scores(bundle)  # a damaged table is told before the hour, not after
        model, tokenizer = load(options, ranks)
        evaluator = CoreEvaluator(
            tokenizer,
            bundle,
            max_per_task=options.max_per_task,
            tasks=labels,
            protocol=options.protocol,
        )
        with Screen(quiet=not ranks.is_main).progress("examples") as progress:
            result = evaluator.evaluate(model, progress)
        if ranks.is_main:
            show(result, published, options.out)
    return 0


def check_out(path: Path) -> None:
    """Raise UserError unless the result can be written to ``path`` and replaces none but ours."""
    require_file_place(path, "--out")
    if path.exists() and not is_result(path):
        raise UserError(
            f"--out {path} exists and is no result of this command; move it away or name another "
            "file"
        )


def show(result: CoreResult, published: Scores, out: Path | None) -> None:
    """Keep the result, then print it: a terminal that fails costs no evaluation."""
    if out is not None:
        write_json(out, result.to_dict(published))
    console = Console()
    if console.is_terminal:
        console.print(core_table(result, published, console.width))
    else:  # a file is as wide as the table
        Console(width=200).print(core_table(result, published))
    print(verdict(result.to_dict()))
    if out is not None:
        print(f"every outcome is in {out}")


def load(options: argparse.Namespace, ranks: Ranks) -> tuple[Any, Any]:
    """The model on this rank's device, ready to evaluate, and its tokenizer."""
    device = ranks.device
    if options.hf is None:
        from nanogpt2.inference.engine import load_engine

        place = (options.checkpoint, str(device), options.dtype, options.tokenizer)
        engine = load_engine(*place, ranks)
        return engine.model, engine.tokenizer
    from nanogpt2.evals.core.huggingface import load_huggingface

    bf16 = options.dtype == "bfloat16" or (options.dtype == "auto" and good_at_bf16(device))
    dtype = torch.bfloat16 if bf16 else torch.float32
    return load_huggingface(options.hf, device, dtype, options.trust_remote_code)


if __name__ == "__main__":
    run_command(main)
