"""Record what a large corpus gives: bytes a token by vocabulary, digits, torn tokens, cropping."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from nanogpt2.data.shards import find_shards, read_documents
from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.errors import run_command
from nanogpt2.lab.records import record
from nanogpt2.studies.tokens_and_rows.layouts import BUFFER, REFILL, ROW, filling, share_rows
from nanogpt2.studies.tokens_and_rows.merging import (
    bytes_by_decoding,
    digit_rows,
    torn,
    vocabulary_rows,
)

SIZES = (1024, 2048, 4096, 8192, 16_384, 32_768, 65_536)
DIGITS_FROM = 3000
"""documents that the tokenizers of other digit groups learn from"""


def measured(texts: Sequence[str], held_out: Sequence[str], depth: int) -> dict[str, Any]:
    """All that the chapter quotes of a corpus, packed in the order of its documents."""
    tokenizer = Tokenizer.train(texts, SIZES[-1])
    records = Tokenizer.train(texts, 32_768)
    lengths = [len(row) for row in records.encode_batch(texts, prepend_bos=True)]
    tokens = np.concatenate([records.encode(text) for text in held_out])
    right, wrong = records.token_bytes[tokens].sum(), bytes_by_decoding(records)[tokens].sum()
    return {
        "documents": len(texts),
        "characters": sum(map(len, texts)),
        "tokens": sum(lengths),
        "longer_than_a_row": float(np.mean(np.asarray(lengths) > ROW)),
        "median_length": float(np.median(lengths)),
        "vocabulary": vocabulary_rows(tokenizer, held_out, SIZES, depth),
        "digits": digit_rows(texts[:DIGITS_FROM], held_out, 32_768),
        "torn": len(torn(records)),
        "bytes_right": int(right),
        "bytes_by_decoding": int(wrong),
        "shares": share_rows(lengths),
        "silted": filling(lengths, ROW, BUFFER, REFILL)._asdict(),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the record."""
    module = "nanogpt2.studies.tokens_and_rows"
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder of parquet shards")
    parser.add_argument("--documents", type=int, default=12_000, help="to learn and pack")
    at = parser.parse_args(argv)
    began, shards = time.perf_counter(), find_shards(at.corpus)
    texts = [text for path in shards.train for text in islice(read_documents(path), at.documents)]
    held_out = [text for path in shards.held_out for text in read_documents(path)]
    results = measured(texts[: at.documents], held_out, depth=24)
    path = record(
        "tokens_and_rows-corpus",
        command=f"python -m {module} --corpus CORPUS --documents {at.documents}",
        configuration={"documents": at.documents, "row": ROW, "buffer": BUFFER, "refill": REFILL},
        seed=0,
        tokens=results["tokens"],
        seconds=time.perf_counter() - began,
        curve=[],
        results=results,
        note="No training: tokenizers, lengths and packing of a corpus of Wikipedia articles, "
        "novels, textbooks and speeches; held-out documents for rates.",
    )
    print(path)


if __name__ == "__main__":
    run_command(main)
