"""The first use of each glossary term on a page leads to its definition."""

from __future__ import annotations

import re
from collections.abc import Iterable

from scripts.paths import BOOK

UNTOUCHED = re.compile(  # fences, headings, formulas, roles, code, links, HTML, substitutions
    r"(^```.*?^```|^:::.*?^:::|^#.*?$|^\|.*?$|\$\$.*?\$\$|\$[^$\n]+\$|\{[\w:]+\}`[^`]*`|`[^`\n]*`"
    r"|!?\[[^\]]*\]\([^)]*\)|<[^>\n]+>|\{\{.*?\}\})",
    re.S | re.M,
)

ALSO_WORDS = {"gain", "ratio", "head", "protocol"}
"""terms that are ordinary words as well: a link would often be wrong"""


def glossary() -> list[str]:
    """Every term that ``book/glossary.md`` defines."""
    text = (BOOK / "glossary.md").read_text(encoding="utf-8")
    inside = text.partition("```{glossary}")[2].partition("```\n")[0]
    return [line for line in inside.splitlines() if line and not line.startswith(" ")]


def link_terms(texts: Iterable[str]) -> list[str]:
    """The Markdown of one page, piece by piece, with the first use of each term as a link."""
    terms = sorted(
        (t for t in glossary() if "(" not in t and t not in ALSO_WORDS), key=len, reverse=True
    )
    any_term = re.compile(rf"(?<![\w-])(?:{'|'.join(map(_pattern, terms))})s?(?![\w-])")
    by_name = {term.lower(): term for term in terms}
    seen: set[str] = set()

    def link(found: re.Match[str]) -> str:
        said = " ".join(found.group(0).split())
        term = by_name.get(said.lower()) or by_name[said.lower().removesuffix("s")]
        if term in seen:
            return found.group(0)
        seen.add(term)
        return f"{{term}}`{said} <{term}>`"

    linked = []
    for text in texts:
        parts = UNTOUCHED.split(text)
        parts[::2] = [any_term.sub(link, part) for part in parts[::2]]
        linked.append("".join(parts))
    return linked


def _pattern(term: str) -> str:
    """``term`` with words over line ends, and with a capital where a sentence begins with it."""
    words = r"\s".join(re.escape(word) for word in term.split(" "))
    return f"[{term[0].upper()}{term[0].lower()}]{words[1:]}" if term[0].isalpha() else words
