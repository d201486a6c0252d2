"""What a chapter's outputs depend on: its own text, the code it reaches, the records it quotes."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from scripts.paths import RESULTS, ROOT

FROM = re.compile(r"from\s+(nanogpt2[\w.]*)\s+import\s+(?:\(([^)]*)\)|([^\n]*))")
DOTTED = re.compile(r"\bnanogpt2(?:\.\w+)*")


def modules_named(text: str) -> set[str]:
    """Dotted names that ``text`` imports from the package or mentions, commands included."""
    found = set(DOTTED.findall(text))
    for module, inside, line in FROM.findall(text):
        found |= {f"{module}.{name}" for name in re.findall(r"\w+", inside or line)}
    return found


def files_of(name: str, root: Path) -> set[Path]:
    """Files that ``import name`` or ``python -m name`` runs, and those of the packages around it.

    A package's files are its ``__init__.py`` and what it puts on pages, its folder ``static``.
    """
    parts = name.split(".")
    found = set()
    for end in range(1, len(parts) + 1):
        path = root.joinpath(*parts[:end])
        found |= {path / "__init__.py", path.with_suffix(".py"), *path.glob("static/*")}
    found.add(root.joinpath(*parts) / "__main__.py")
    return {path for path in found if path.is_file()}


def code_reached(text: str, root: Path = ROOT) -> list[Path]:
    """Every file of the package that ``text`` names, directly or through other files, sorted."""
    reached: set[Path] = set()
    texts = [text]
    while texts:
        named = modules_named(texts.pop())
        new = {path for name in named for path in files_of(name, root)} - reached
        reached |= new
        texts += [path.read_text(encoding="utf-8") for path in new]
    return sorted(reached)


def fingerprint(notebook: Path, parameters: dict[str, Any]) -> str:
    """Hash of everything that a chapter's outputs depend on."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    code = code_reached(text)
    quoted = text + "".join(path.read_text(encoding="utf-8") for path in code)
    records = [path for path in sorted(RESULTS.glob("*.json")) if path.stem in quoted]
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode())
    for path in [notebook, *code, *records]:
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
