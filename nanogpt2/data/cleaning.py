"""What is kept of a document, what is dropped and why, and what is held out: all of it counted.

``prepare`` reads documents and asks here. Chapter: tokens_and_rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from nanogpt2.data.documents import SEPARATOR
from nanogpt2.errors import UserError

HELD_OUT = 0.02
LEAST_HELD_OUT = 20_000
"""characters, of small sets: as far as a tenth holds so many"""
MIN_CHARS = 20
DROPS = ("empty", "too short", "duplicate", "no text", "left-over test")


@dataclass(frozen=True)
class Rules:
    """How documents are cleaned and dealt out."""

    column: str | None = None
    """of tables; None: ``text``, else the one with the longest strings"""
    min_chars: int = MIN_CHARS
    """a document with fewer is dropped"""
    held_out: float = HELD_OUT
    """share of the characters, by whole documents, where no source is named validation or test"""
    encoding: str = "cp1252"
    """of documents that are not UTF-8"""
    separator: str = SEPARATOR
    """parts a file of prose into documents"""

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1:
            raise UserError(f"the share held out is {self.held_out}; choose one between 0 and 1")
        try:
            b"".decode(self.encoding)
        except LookupError:
            raise UserError(
                f"there is no encoding {self.encoding!r}; try cp1252 or gb18030"
            ) from None


@dataclass
class Progress:
    """What is done: all that the first pass must know to go on."""

    source: int = 0
    document: int = 0
    """of that source, still to be read"""
    parts: int = 0
    read: int = 0
    kept: int = 0
    characters: int = 0
    held_out: int = 0
    held_out_characters: int = 0
    drops: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DROPS, 0))
    recoded: int = 0
    """documents that were not UTF-8"""
    histogram: dict[str, int] = field(default_factory=dict)
    """documents by the power of two below their length in characters"""
    samples: list[list[str]] = field(default_factory=list)
    """digest and beginning of the documents of the smallest digests"""

    def describe(self) -> Iterator[str]:
        """The summary, in lines for people."""
        yield f"{self.read:,} documents read, {self.kept:,} kept ({self.characters:,} characters)"
        drops = ", ".join(f"{count:,} {why}" for why, count in self.drops.items() if count)
        yield f"dropped: {drops or 'none'}"
        if self.recoded:
            yield f"not UTF-8, and read by the encoding given instead: {self.recoded:,}"
        share = self.held_out_characters / max(1, self.characters)
        yield f"held out: {self.held_out:,} documents, {share:.1%} of the characters"
        most = max(self.histogram.values(), default=1)
        for power, count in sorted((int(p), n) for p, n in self.histogram.items()):
            bar = "#" * -(-30 * count // most)
            yield f"{2**power:>12,} characters and more {bar:<30} {count:,}"
        for _, text in self.samples:
            yield f"  | {text}"


def cleaned(raw: bytes | str | None, rules: Rules, progress: Progress) -> tuple[str, str]:
    """The document as it is kept, and why it is not ("": it is)."""
    if isinstance(raw, str):
        raw = _as_bytes(raw)
    try:
        text = (raw or b"").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        text = error.object.decode(rules.encoding, "replace")
        if "\0" not in text:
            progress.recoded += 1
    if "\0" in text:
        return "", "no text"
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    if not text:
        return "", "empty"
    return (text, "too short") if len(text) < rules.min_chars else (text, "")


def _as_bytes(text: str) -> bytes:
    """In UTF-8, but for bytes that were not; halves of characters, as JSON may leave them, go."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        if not _is_marked(text):
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return text.encode("utf-8", "surrogateescape")


def _is_marked(text: str) -> bool:
    """Whether lone surrogates stand for bytes that were no UTF-8, and for nothing else."""
    return all("\udc80" <= c <= "\udcff" for c in text if "\ud800" <= c <= "\udfff")


def count(text: str, progress: Progress) -> None:
    """Take in a document that is kept."""
    progress.kept += 1
    progress.characters += len(text)
    power = str(len(text).bit_length() - 1)
    progress.histogram[power] = progress.histogram.get(power, 0) + 1


def is_held_out(text: str, split: str, splits: set[str], progress: Progress, rules: Rules) -> bool:
    """By its source's name where any is telling; else whenever less than the share is held out."""
    if splits != {"train"}:
        return split != "train"
    total, held = progress.characters, progress.held_out_characters
    if len(text) > 2 * total / progress.kept:  # it would be all that is measured for long
        return False
    return held < max(rules.held_out * total, min(LEAST_HELD_OUT, total / 10))
