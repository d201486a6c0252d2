"""Text with a very long run of blanks, which the engine under tiktoken and rustbpe cannot split.

Their regular expressions backtrack over blanks (``\\s+(?!\\S)``) one step a character, and the
engine gives up, with a panic, at a million steps. Every split pattern in use has such a part, so
such a text is taken apart here first, by the ``regex`` package and the same pattern.

Chapter: tokens_and_rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import regex

from nanogpt2.errors import UserError

LONG = 2**16
"""characters of a piece that is handled by itself: a fifteenth of what the engine can take"""


def has_long_run(text: str) -> bool:
    """Whether blanks fill one of the blocks of ``LONG`` characters that ``text`` consists of.

    So it is True wherever 2 LONG - 1 blanks stand together, and costs a copy of the text at most.
    """
    if len(text) < LONG:  # nearly every document
        return False
    starts = range(0, len(text) - LONG + 1, LONG)
    return any(text[start : start + LONG].isspace() for start in starts)


def cut_long_runs(text: str, pattern: str) -> Iterator[tuple[str, bool]]:
    """Parts of ``text`` in order, and of each whether it is one long piece of ``pattern``.

    Splitting each part gives the pieces of the whole: a piece depends on nothing before it (no
    pattern in use looks behind), and one that ends before blanks would end there at the text's end
    too. Only blanks are cut out: all else is left to tiktoken, whose Unicode tables may be of
    another year than those of ``regex``.
    """
    end = 0
    for piece in _compiled(pattern).finditer(text):
        start, stop = piece.span()
        # str.isspace takes a few control characters (0x1c to 0x1f) for blanks, patterns do not
        if stop - start >= LONG and regex.fullmatch(r"\s+", piece.group()):
            if start > end:
                yield text[end:start], False
            yield piece.group(), True
            end = stop
    if end < len(text):
        yield text[end:], False


def _compiled(pattern: str) -> regex.Pattern[str]:
    try:
        return regex.compile(pattern)
    except regex.error as error:
        raise UserError(
            f"a text has a run of {LONG:,} blanks or more, and this tokenizer's pattern cannot "
            f"take it apart ({error}); shorten the run, or train a tokenizer with our pattern"
        ) from None
