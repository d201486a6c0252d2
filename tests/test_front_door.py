"""What ``import nanogpt2`` offers: at once, without torch, and enough to train a model with."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib import import_module, metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import nanogpt2

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest

ROOT = Path(__file__).resolve().parent.parent


def python(code: str, *arguments: str) -> str:
    """What ``code`` prints in an interpreter of its own."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def example(page: str) -> str:
    """The one block of Python on a page."""
    (block,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text("utf-8"), re.M | re.S)
    return block


def base_modules() -> set[str]:
    """Top-level modules of all that a plain installation brings: dependencies, and theirs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    found, waiting = set(), list(project["dependencies"])
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonical(requirement.name)
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if wanted and name not in found:
            found.add(name)
            waiting += metadata.requires(name) or []
    return {
        module
        for module, owners in metadata.packages_distributions().items()
        if found & set(map(canonical, owners))
    }


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def other_modules(base: Iterable[str]) -> set[str]:
    """Top-level modules that are installed here and that a plain installation has not."""
    return set(metadata.packages_distributions()) - {*base, "nanogpt2"}


def test_the_import_is_quick_it_takes_the_standard_library_alone() -> None:
    code = "import sys; before = {*sys.modules}; import nanogpt2; print(*{*sys.modules} - before)"
    loaded = set(python(code).split())
    assert {name for name in loaded if name.startswith("nanogpt2")} == {"nanogpt2"}
    assert not {name.split(".")[0] for name in loaded} & {*base_modules(), "torch", "numpy"}


@pytest.mark.parametrize("name", [n for n in nanogpt2.__all__ if n != "__version__"])
def test_a_name_is_the_one_of_its_room(name: str) -> None:
    thing = getattr(nanogpt2, name)
    assert thing is getattr(import_module(thing.__module__), name)
    assert thing.__doc__ and name in dir(nanogpt2)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(str(nanogpt2.__file__)).read_text("utf-8"))
    seen = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(seen) | {"__version__"} == set(nanogpt2.__all__)
    for name, module in seen.items():
        assert getattr(import_module(str(module)), name) is getattr(nanogpt2, name)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'gpt'"):
        nanogpt2.gpt  # noqa: B018


# runs a script (the second argument) as if the modules of the first were not installed
PLAIN = """
import json, sys

class Plain:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, *more):
        return None if name.split(".")[0] in OTHERS else self.finder.find_spec(name, *more)

OTHERS = set(json.loads(sys.argv[1]))
sys.meta_path[:] = map(Plain, sys.meta_path)
scope = {"__name__": "__main__"}
exec(sys.argv[2], scope)
losses = [point["loss"] for point in scope["curve"]]
print(json.dumps(losses))
"""


def test_the_readmes_example_learns_in_a_plain_installation() -> None:
    others = other_modules(base_modules())
    assert {"pytest", "hypothesis"} <= others and "torch" not in others
    printed = python(PLAIN, json.dumps(sorted(others)), example("README.md"))
    told, bits, text, losses = printed.splitlines()
    first, *_, last = json.loads(losses)
    assert told == f"loss {first:.2f} -> {last:.2f} nats a token"
    assert last < 0.1 * first, "it has learned to count"
    assert 0 < float(bits.split()[0]) < 2
    assert re.fullmatch(r"[\d, and.]+", text) and "41, 42" in text


def test_the_example_is_short_and_the_book_shows_the_same() -> None:
    assert len(example("README.md").splitlines()) <= 15
    assert example("book/how-to-use.md") == example("README.md")
