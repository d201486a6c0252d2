"""Documents to batches: learning a vocabulary, tokenizing, packing, and the loader that does all.

python -m benchmarks.data [--megabytes N] [--json PATH]

Text is the embedded corpus. What a step waits for its batch is measured beside a stand-in for the
step that sleeps twice as long as a batch takes to make. Packing is compared with the plain form,
which scans a list for the longest document that fits. Times are the best of a few rounds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.table import Row, report
from nanogpt2.data.corpus import write_embedded_corpus
from nanogpt2.data.loader import REFILL, TokenLoader, ahead
from nanogpt2.data.packing import pack_rows
from nanogpt2.data.shards import find_shards
from nanogpt2.data.tokenizer import Tokenizer, bytes_per_token, text_sample
from nanogpt2.errors import run_command

VOCABULARY, BATCH_ROWS, BUFFER = 4096, 16, 1000
LENGTHS = (256, 2048)

Result = TypeVar("Result")


def best(rounds: int, action: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds of the fastest of ``rounds`` runs, and what it returned."""
    seconds = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        result = action()
        seconds = min(seconds, time.perf_counter() - start)
    return seconds, result


def scan_rows(batches: Iterator[list[list[int]]], capacity: int) -> Iterator[list[int]]:
    """``pack_rows`` as its definition reads: a list, scanned for every choice."""
    buffer: list[list[int]] = []
    while True:
        row: list[int] = []
        while len(row) < capacity:
            while len(buffer) < BUFFER and (batch := next(batches, None)):
                buffer += batch
            if not buffer:
                return
            room = capacity - len(row)
            fitting = [i for i, document in enumerate(buffer) if len(document) <= room]
            if fitting:
                choice = max(fitting, key=lambda i: len(buffer[i]))
            else:
                choice = min(range(len(buffer)), key=lambda i: len(buffer[i]))
            row += buffer.pop(choice)[:room]
        yield row


def packing_rows(documents: list[list[int]], rounds: int) -> Iterator[Row]:
    """Tokens a second into rows of each length, against the scan, and the part cropped away."""

    def batches() -> Iterator[list[list[int]]]:
        return (documents[i : i + REFILL] for i in range(0, len(documents), REFILL))

    total = sum(map(len, documents))
    for length in LENGTHS:
        where = f"packing, T {length}"
        seconds, rows = best(rounds, lambda t=length: list(pack_rows(batches(), t + 1, BUFFER)))
        scanning, scanned = best(1, lambda t=length: list(scan_rows(batches(), t + 1)))
        if rows != scanned:
            raise AssertionError(f"{where}: the rows differ from those of the definition")
        packed = len(rows) * (length + 1)
        yield Row("data", where, packed / seconds, "tokens/s")
        yield Row("data", f"{where}: times as fast as by scanning", scanning / seconds, "x")
        yield Row("data", f"{where}: cropped away", 100 * (1 - packed / total), "%")


def tokenizing_rows(
    texts: list[str], vocab_size: int, rounds: int
) -> tuple[Tokenizer, list[list[int]], list[Row]]:
    """Learn from ``texts`` and encode them, in one thread and in two."""
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    seconds, tokenizer = best(1, lambda: Tokenizer.train(texts, vocab_size))
    rows = [Row("data", f"learning {vocab_size} tokens", megabytes / seconds, "MB/s")]
    documents: list[list[int]] = []
    for threads in (1, 2):

        def encode(threads: int = threads) -> list[list[int]]:
            return tokenizer.encode_batch(texts, prepend_bos=True, threads=threads)

        seconds, documents = best(rounds, encode)
        name = f"tokenizing, {threads} thread{'s' * (threads > 1)}"
        rows.append(Row("data", name, megabytes / seconds, "MB/s"))
        rows.append(Row("data", name, sum(map(len, documents)) / seconds, "tokens/s"))
    rows.append(Row("data", "a token", bytes_per_token(tokenizer, texts[:1000]), "bytes"))
    return tokenizer, documents, rows


def loader_rows(folder: Path, tokenizer: Tokenizer, tokens: int, rounds: int) -> Iterator[Row]:
    """Batches as a training step gets them: read, tokenized in threads, packed, with a state."""
    for length in LENGTHS:
        rows = max(1, BATCH_ROWS * LENGTHS[0] // length)
        batches = max(1, tokens // (rows * length))

        def load(rows: int = rows, length: int = length, batches: int = batches) -> int:
            loader = TokenLoader(folder, tokenizer, rows, length)
            return sum(inputs.numel() for inputs, _, _ in islice(loader, batches))

        seconds, loaded = best(rounds, load)
        yield Row("data", f"loader, {rows} x {length}", loaded / seconds, "tokens/s")
        step = 2 * seconds / batches
        for name, made in (("one by one", iter), ("made ahead", ahead)):
            waits = waiting(made(TokenLoader(folder, tokenizer, rows, length)), batches, step)
            yield Row("data", f"loader, {rows} x {length}, {name}: a step waits", waits, "ms")


def waiting(stream: Iterator[Any], batches: int, step: float) -> float:
    """Milliseconds that the thread of the steps spends on a batch, as a mean.

    A step leaves the processor to others for ``step`` seconds, as one on a GPU does.
    """
    next(stream)  # which fills the packing buffer
    spent = 0.0
    for _ in range(batches):
        time.sleep(step)
        start = time.perf_counter()
        next(stream)
        spent += time.perf_counter() - start
    return 1000 * spent / batches


def measure(megabytes: float = 16.0, vocab_size: int = VOCABULARY, rounds: int = 3) -> list[Row]:
    """All rates, over ``megabytes`` of the embedded corpus (it has about 17)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data"
        write_embedded_corpus(folder)
        texts = list(text_sample(find_shards(folder).train, int(megabytes * 1e6)))
        tokenizer, documents, rows = tokenizing_rows(texts, vocab_size, rounds)
        rows += packing_rows(documents, rounds)
        rows += loader_rows(folder, tokenizer, sum(map(len, documents)) // 2, rounds)
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=__doc__)
    parser.add_argument("--megabytes", type=float, default=16.0, help="of text (16)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the rows")
    options = parser.parse_args()
    report(measure(options.megabytes), options.json, "documents to batches")


if __name__ == "__main__":
    run_command(main)
