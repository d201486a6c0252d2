"""What a compiler must know of our functions, said without importing the compiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Function = TypeVar("Function", bound=Callable[..., object])


def asked_while_tracing(function: Function) -> Function:
    """``torch.compile`` calls ``function`` once, while tracing, and keeps its answer in the graph.

    ``torch.compiler.assume_constant_result`` sets the same mark, but imports the compiler for it,
    which takes a second and 75 MB from every command.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
