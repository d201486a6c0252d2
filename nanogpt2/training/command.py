"""``python -m nanogpt2.training.trainer``: train from prepared data and a trained tokenizer."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from nanogpt2.data.shards import find_shards
from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.errors import UserError
from nanogpt2.files import named_path, require_folder_place
from nanogpt2.logs import KINDS, check_log, open_log
from nanogpt2.recipes import get_recipe
from nanogpt2.run import EVAL_TOKENS, Loop, Run, add_options, assignments
from nanogpt2.training.checkpoint import list_checkpoints
from nanogpt2.training.loading import find_tokenizer_folder
from nanogpt2.training.onward import onward_recipe
from nanogpt2.training.settings import StepReport
from nanogpt2.training.trainer import train

LOOP = Loop(eval_every=250, eval_tokens=EVAL_TOKENS, checkpoint_every=0)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m nanogpt2.training.trainer",
        description="Train a model from prepared data and a trained tokenizer. An unfinished run "
        "in --out goes on from its newest checkpoint. Start it with torchrun for several GPUs.",
    )
    add_options(p, "laptop", LOOP, needs_data=True)
    p.add_argument(
        "--tokenizer",
        type=named_path,
        metavar="DIR",
        help="a saved one (with --init-from: that model's own, if it lies beside it)",
    )
    p.add_argument(
        "--log", default="none", metavar="KIND", help=f"{', '.join(KINDS)} (default: none)"
    )
    p.add_argument("--resume-from", type=named_path, metavar="DIR", help="continue this checkpoint")
    return p


def asked_for(options: argparse.Namespace) -> Run:
    """The run of a command line; without a word on the vocabulary it is the tokenizer's."""
    named, recipe = assignments(options), get_recipe(options.recipe or "laptop")
    if options.init_from is not None:
        recipe = onward_recipe(options.init_from, options.recipe)
        options.tokenizer = options.tokenizer or find_tokenizer_folder(options.init_from)
    if options.tokenizer is None:
        raise UserError("the model needs a tokenizer; name a saved one with --tokenizer")
    if not {"vocab_size", "model.vocab_size"} & set(named):
        named["vocab_size"] = str(Tokenizer.load(options.tokenizer).vocab_size)
    # over a run of any length, about ten
    watch = LOOP if "minutes" not in named else Loop(checkpoint_every=0)
    run = Run(
        recipe,
        options.out,
        options.data,
        options.tokenizer,
        seed=options.seed or 0,
        init_from=options.init_from,
        device=options.device,
        loop=watch,
        core_bundle=options.core_bundle,
        more_data=options.more_data,
        resume_from=options.resume_from,
        log=options.log,
    )
    return run.assign(named)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as the command line says; returns the exit code."""
    options = parser().parse_args(arguments)
    require_folder_place(options.out, "--out")
    check_log(options.log)
    run = asked_for(options)
    shards, main_rank = find_shards(options.data), os.environ.get("RANK", "0") == "0"
    if main_rank and not list_checkpoints(options.out):
        print(shards.describe(), file=sys.stderr)
    every = max(1, run.dial.iterations // 100)
    log = open_log(run.log if main_rank else "none", run.out, run.identity())

    def show(report: StepReport) -> None:
        log.log(report.step, report.to_log())
        if report.step % every == 0 or report.val_bpb is not None or report.step == report.steps:
            bpb = "" if report.val_bpb is None else f", validation {report.val_bpb:.4f} bits/byte"
            mfu = "" if report.mfu is None else f", {report.mfu:.1%} of peak"
            print(
                f"step {report.step:,}/{report.steps:,}: loss {report.loss:.4f}{bpb}, "
                f"{report.tokens_per_second:,.0f} tokens/s{mfu}",
                file=sys.stderr,
            )

    result = train(run, show)
    log.close()
    if result.stopped_by:
        print(
            f"stopped by {result.stopped_by} at step {result.step:,}, saved in "
            f"{result.checkpoint}; {result.onward} continues",
            file=sys.stderr,
        )
    return result.exit_code
