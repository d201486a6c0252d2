"""What the book needs of Sphinx that no setting gives."""

from __future__ import annotations

import re
from typing import Any

from docutils.nodes import reference

SPECIAL_TOKEN = re.compile(r"(?<!`)(<\|\w+\|>)(?!`)")


def quote_special_tokens(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Docstrings say <|bos|>, which reStructuredText would take for a substitution."""
    lines[:] = [SPECIAL_TOKEN.sub(r"``\1``", line) for line in lines]


def drop_thebe(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Jupyter Book always loads the starter of thebe, which this book does not use, twice."""
    context["script_files"] = [
        script
        for script in context.get("script_files", [])
        if "thebe" not in f"{getattr(script, 'filename', script)} {script.attributes.get('body')}"
    ]


def number_chapters(app: Any, env: Any) -> list[str]:
    """A chapter has its file's number, whichever others are written, and its equations have it."""
    for document, numbers in env.toc_secnumbers.items():
        if found := re.match(r"chapters/(\d+)_", document):
            first = int(found.group(1))
            for counted in (numbers, *env.toc_fignumbers.get(document, {}).values()):
                counted |= {place: (first, *number[1:]) for place, number in counted.items()}
            for node in [env.titles[document], *env.tocs[document].findall(reference)]:
                node["secnumber"] = [first, *(node.get("secnumber") or [])[1:]]
    return []


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", quote_special_tokens)
    app.connect("env-get-updated", number_chapters, priority=900)
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
