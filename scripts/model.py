"""Make the book's model, ``book/_static/model``, from the folder of a run that kept checkpoints.

    python -m scripts.model RUN            four checkpoints of the run and a bigram baseline
    python -m scripts.model RUN --out DIR  elsewhere

The last checkpoint is written in ``--bits`` bits, three earlier ones in 4, which are loaded only
when a reader moves through training. The baseline counts as many tokens of the training shards
as the model has read. Everything is measured on the run's held-out text and printed into the card.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from nanogpt2.data.shards import read_documents
from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.errors import UserError, run_command
from nanogpt2.export.trained import Trained, load_trained
from nanogpt2.export.web import held_out_text, write_model
from nanogpt2.export.web_format import bring, packed
from nanogpt2.files import atomic_directory, named_path
from nanogpt2.reporting.run import Run, load_run
from nanogpt2.training.checkpoint import list_checkpoints, step_of
from scripts.bigram import Bigram, bigram, count_pairs
from scripts.paths import BOOK

EARLIER = (0.01, 0.1, 0.4)
"""parts of the training after which the slider's earlier checkpoints stand"""
BITS, EARLIER_BITS = 7, 4
KEPT = 200_000
"""pairs of the baseline: 0.6 MB before packing"""
TEXT = """\
It read encyclopedia articles, textbooks, novels, public speeches and a factbook, all in English:
articles of Wikipedia (by its contributors, CC BY-SA 3.0, https://en.wikipedia.org), five textbooks
of OpenStax College (CC BY 3.0, free at https://openstax.org), English novels of 1827 to 1927
(public domain; ELTeC-eng, edited by Lou Burnard, and 100 English Novels of the Computational
Stylistics Group), The World Factbook, and US Presidents' State of the Union and inaugural addresses
(public domain). A model this small keeps turns of phrase of what it read; where it repeats
Wikipedia's text, that text's licence holds. The weights are given under CC BY-SA 3.0."""


def documents(run: Run, tokenizer: Tokenizer) -> Iterator[list[int]]:
    """Token ids of the training shards' documents, each after its <|bos|>."""
    for name, _ in run.config["identity"]["text"]["train"]:
        for text in read_documents(Path(run.config["data_dir"]) / name):
            yield tokenizer.encode(text, prepend_bos=True)


def bits_per_byte_of(
    model: Bigram, batches: list[tuple[Tensor, Tensor]], token_bytes: np.ndarray
) -> float:
    """As ``nanogpt2.evals.bits_per_byte``, for the baseline."""
    both = [np.stack((x.numpy(), y.numpy()), -1).reshape(-1, 2) for x, y in batches]
    pairs = np.concatenate(both)
    pairs = pairs[token_bytes[pairs[:, 1]] > 0]
    bits = 0.0
    for first in np.unique(pairs[:, 0]):
        p = model.probabilities(int(first))[pairs[pairs[:, 0] == first, 1]]
        bits -= float(np.log2(p).sum())
    return bits / float(token_bytes[pairs[:, 1]].sum())


def chosen(run: Path) -> list[Path]:
    """The checkpoints of the slider, oldest first, the last one last."""
    found = list_checkpoints(run)[::-1]
    if not found:
        raise UserError(f"{run} holds no checkpoint; train with --checkpoint-every and --keep-last")
    last = step_of(found[-1])

    def nearest(step: float) -> Path:
        return min(found, key=lambda path: abs(math.log(step_of(path) / step)))

    near = [nearest(part * last) for part in EARLIER]
    return [*dict.fromkeys([*near, found[-1]])]


def build(folder: Path, out: Path, bits: int, tokens: int) -> None:
    """Write the book's model of the run in ``folder`` to ``out``."""
    run, places = load_run(folder), chosen(folder)
    sets: dict[str, tuple[Trained, int]] = {"final": (load_trained(places[-1]), bits)}
    for path in places[:-1]:
        sets[path.name] = (load_trained(path), EARLIER_BITS)
    final = sets["final"][0]
    read = run.config["dial"]["batch_tokens"] * step_of(places[-1])
    vocab = final.model.config.vocab_size
    baseline = bigram(count_pairs(documents(run, final.tokenizer), vocab, read), KEPT)
    batches = held_out_text(final, tokens)
    size = bring(out, "bigram", packed(baseline.to_bytes()))
    measured = bits_per_byte_of(baseline, batches, final.tokenizer.token_bytes)
    steps = {"final": step_of(places[-1]), **{p.name: step_of(p) for p in places[:-1]}}
    more = {
        "steps": steps,
        "batch_tokens": run.config["dial"]["batch_tokens"],
        "bigram": {"pairs": len(baseline.seconds), "bytes": size, "bpb": measured},
    }
    about = [TEXT, f"Beside it stands a bigram model of {len(baseline.seconds):,} pairs, counted "
             f"in {read:,} tokens of the same text: {measured:.4f} bits per byte.",
             "All figures here are printed by `python -m scripts.model RUN`, with the folder of "
             "the run whose record is `book/results/speedrun-model.json`."]  # fmt: skip
    write_model(out, sets, "The book's model", about, tokens, more)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.model", description=__doc__)
    parser.add_argument("run", type=named_path, help="folder of a run that kept its checkpoints")
    parser.add_argument("--out", type=named_path, default=BOOK / "_static" / "model")
    parser.add_argument("--bits", type=int, default=BITS, choices=range(2, 9))
    parser.add_argument("--tokens", type=int, default=65_536, help="held-out tokens to measure on")
    options = parser.parse_args()
    with atomic_directory(options.out, options.run) as folder:
        build(options.run, folder, options.bits, options.tokens)
    print((options.out / "README.md").read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    run_command(main)
