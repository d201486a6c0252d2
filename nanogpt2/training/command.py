"""``python -m nanogpt2.training.trainer``: train from prepared data and a trained tokenizer."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from nanogpt2.data.shards import find_shards
from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.depth import dial
from nanogpt2.files import named_path, require_folder_place
from nanogpt2.recipes import RECIPES, Recipe, get_recipe, override
from nanogpt2.training.checkpoint import list_checkpoints
from nanogpt2.training.settings import StepReport, TrainSettings
from nanogpt2.training.trainer import train


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m nanogpt2.training.trainer",
        description="Train a model from prepared data and a trained tokenizer. An unfinished run "
        "in --out goes on from its newest checkpoint. Start it with torchrun for several GPUs.",
    )
    defaults = TrainSettings(get_recipe("laptop"), Path(), Path(), Path())
    p.add_argument("--data", type=named_path, required=True, metavar="DIR", help="parquet shards")
    p.add_argument("--tokenizer", type=named_path, required=True, metavar="DIR")
    p.add_argument("--out", type=named_path, required=True, metavar="DIR", help="folder of the run")
    p.add_argument("--recipe", default="laptop", help=f"one of {', '.join(RECIPES)}")
    p.add_argument("--depth", type=int, help="layers (default: the recipe's)")
    p.add_argument("--steps", type=int, help="length of the run (default: the recipe's)")
    text = "any field of the recipe or its model, as in --set muon.lr=0.03"
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=text)
    p.add_argument("--device", default="auto", help="auto, cuda, mps, cpu")
    p.add_argument("--precision", default="auto", help="auto, bf16, fp32")
    p.add_argument("--compile", default="auto", help="auto, on, off")
    p.add_argument("--device-batch-size", type=int, metavar="N", help="rows of a forward pass")
    for name, text in (
        ("eval-every", "steps between measurements of validation (0: at the end, -1: never)"),
        ("eval-tokens", "tokens of one measurement"),
        ("checkpoint-every", "steps between checkpoints (0: only at the end)"),
        ("keep-last", "checkpoints to keep, beside the best one"),
        ("seed", "of the start values"),
    ):
        default = getattr(defaults, name.replace("-", "_"))
        text = f"{text} (default {default})"
        p.add_argument(f"--{name}", type=int, default=default, metavar="N", help=text)
    p.add_argument("--max-seconds", type=float, metavar="S", help="stop, saved, after so long")
    text = "go on with shards that have come to --data since the run began"
    p.add_argument("--more-data", action="store_true", help=text)
    p.add_argument("--resume-from", type=named_path, metavar="DIR", help="continue this checkpoint")
    return p


def _recipe(options: argparse.Namespace) -> Recipe:
    pairs = dict(text.partition("=")[::2] for text in options.set)
    recipe = override(get_recipe(options.recipe), pairs)
    if "vocab_size" not in pairs:  # the tokenizer is given, so its size is
        size = Tokenizer.load(options.tokenizer).vocab_size
        recipe = replace(recipe, model=replace(recipe.model, vocab_size=size))
    return recipe


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as the command line says; returns the exit code."""
    options = parser().parse_args(arguments)
    require_folder_place(options.out, "--out")
    recipe = _recipe(options)
    known = {field.name for field in fields(TrainSettings)}
    settings = TrainSettings(
        recipe=recipe,
        data_dir=options.data,
        tokenizer_dir=options.tokenizer,
        out_dir=options.out,
        **{name: value for name, value in vars(options).items() if name in known - {"recipe"}},
    )
    shards = find_shards(options.data)
    if os.environ.get("RANK", "0") == "0" and not list_checkpoints(options.out):
        print(shards.describe(), file=sys.stderr)
    plan = dial(options.depth, recipe)
    every = max(1, (options.steps or plan.iterations) // 100)

    def show(report: StepReport) -> None:
        if report.step % every == 0 or report.val_bpb is not None or report.step == report.steps:
            bpb = "" if report.val_bpb is None else f", validation {report.val_bpb:.4f} bits/byte"
            mfu = "" if report.mfu is None else f", {report.mfu:.1%} of peak"
            print(
                f"step {report.step:,}/{report.steps:,}: loss {report.loss:.4f}{bpb}, "
                f"{report.tokens_per_second:,.0f} tokens/s{mfu}",
                file=sys.stderr,
            )

    result = train(settings, show)
    if result.stopped_by:
        print(
            f"stopped by {result.stopped_by} at step {result.step:,}, saved in "
            f"{result.checkpoint}; the same command continues",
            file=sys.stderr,
        )
    return result.exit_code
