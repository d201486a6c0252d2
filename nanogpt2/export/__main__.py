"""``python -m nanogpt2.export``: a checkpoint as a folder that other programs read.

Chapter: speedrun.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module

from nanogpt2.errors import run_command
from nanogpt2.files import atomic_directory, named_path

KINDS: dict[str, str] = {
    "web": "a page to play with it: open index.html; no server, no network",
    "hf": "for transformers: weights, code, tokenizer, model card",
    "nanochat": "for nanochat: model_*.pt, meta_*.json, tokenizer/tokenizer.pkl",
    "safetensors": "one file of weights; a checkpoint for this program, whatever it came from",
    "onnx": "a graph from tokens to logits, and the tokenizer",
}
"""kind, and what its folder is for; the module of that name is imported when it is asked for"""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    kinds = "\n".join(f"  {kind:<12} {what}" for kind, what in KINDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m nanogpt2.export",
        description="Write a trained model for other programs.",
        epilog=f"kinds:\n{kinds}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--checkpoint", type=named_path, required=True, help="folder of a run or of a checkpoint")
    add("--tokenizer", type=named_path, help="folder of its tokenizer (default: the run's own)")
    add(
        "--recipe",
        metavar="NAME",
        help="whose switches a nanochat model has (default: as told by "
        "its tensors: run1, run5 or head; run4's they do not show)",
    )
    add("--to", choices=tuple(KINDS), required=True, metavar="KIND", help="see below")
    add("--out", type=named_path, required=True, metavar="DIR", help="a folder to be made")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the folder whole, or not at all, and print its name."""
    options = parser().parse_args(argv)
    from nanogpt2.export.trained import load_trained
    from nanogpt2.training.loading import find_tokenizer_folder

    own = options.tokenizer or find_tokenizer_folder(options.checkpoint)
    with atomic_directory(options.out, options.checkpoint, own) as folder:
        kind = import_module(f"nanogpt2.export.{options.to}")
        kind.write(load_trained(options.checkpoint, options.tokenizer, options.recipe), folder)
    print(options.out)
    return 0


if __name__ == "__main__":
    run_command(main)
