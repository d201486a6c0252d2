"""A bigram model of counted tokens, small enough for a page: what a model must beat.

Absolute discounting (Ney, Essen and Kneser, 1994): a pair seen c times after a token seen n times
has probability (c - 0.75) / n; what is left over goes to all other tokens by their own frequency.
Only the pairs seen most often are kept, each in three bytes: a token, and -16 log2 p rounded up.
``page/baseline.js`` reads it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

DISCOUNT = 0.75
STEPS = 16
"""of a bit"""


@dataclass(frozen=True)
class Bigram:
    """Kept pairs by their first token, and the frequency of every token."""

    counts: np.ndarray
    """(V,) uint16: pairs kept after each token"""
    seconds: np.ndarray
    """(n,) uint16: their second tokens"""
    costs: np.ndarray
    """(n,) uint8: -16 log2 of their probability"""
    frequency: np.ndarray
    """(V,) float32, sums to 1"""

    def to_bytes(self) -> bytes:
        """frequency, counts, seconds, costs, one after another."""
        parts = (self.frequency, self.counts, self.seconds, self.costs)
        return b"".join(part.tobytes() for part in parts)

    def probabilities(self, first: int) -> np.ndarray:
        """(V,) float64: of what follows ``first``."""
        start = int(self.counts[:first].sum(dtype=np.int64))
        kept = slice(start, start + int(self.counts[first]))
        seconds = self.seconds[kept].astype(np.int64)
        seen = 2.0 ** (-self.costs[kept].astype(np.float64) / STEPS)
        rest = self.frequency.astype(np.float64)
        rest[seconds] = 0
        out = rest * ((1 - seen.sum()) / rest.sum())
        out[seconds] = seen
        return out


def count_pairs(documents: Iterable[list[int]], vocab_size: int, most: int) -> np.ndarray:
    """(V, V) int32: how often one token followed another, over the first ``most`` tokens."""
    pairs = np.zeros(vocab_size * vocab_size, dtype=np.int32)
    used = 0
    for ids in documents:
        if used >= most:
            break
        tokens = np.asarray(ids[: most - used], dtype=np.int64)
        used += len(tokens)
        np.add.at(pairs, tokens[:-1] * vocab_size + tokens[1:], 1)
    return pairs.reshape(vocab_size, vocab_size)


def bigram(pairs: np.ndarray, keep: int) -> Bigram:
    """The model of the ``keep`` pairs that were seen most often."""
    seen = np.sort(pairs[pairs > 1])
    least = int(seen[-keep]) if len(seen) > keep else 2
    kept = pairs >= least
    totals = np.maximum(pairs.sum(axis=1), 1)
    firsts, seconds = np.nonzero(kept)
    p = (pairs[kept] - DISCOUNT) / totals[firsts]
    costs = np.ceil(-STEPS * np.log2(p))
    fits = costs < 256  # a pair rarer than 2^-16 is left to frequency
    counts = np.bincount(firsts[fits], minlength=len(pairs))
    frequency = pairs.sum(axis=0) + 1.0
    return Bigram(
        counts.astype(np.uint16),
        seconds[fits].astype(np.uint16),
        costs[fits].astype(np.uint8),
        (frequency / frequency.sum()).astype(np.float32),
    )
