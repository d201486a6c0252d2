"""What the book needs of Sphinx that no setting gives."""

from __future__ import annotations

import re
from typing import Any

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


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", quote_special_tokens)
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
