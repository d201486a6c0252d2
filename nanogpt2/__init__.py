"""nanogpt2: the trainer behind the book, from documents to a model as good as GPT-2.

Rooms stand in the order data flows through them: ``config``, ``depth``, ``recipes``, ``data``,
``kernels``, ``model``, ``optim``, ``inference``, ``evals``, ``training``, ``planning``,
``speedrun``, ``lab``, ``studies``; each imports only from those before it.
"""

from importlib import metadata
from typing import Any

from nanogpt2.config import GPTConfig

__all__ = ["GPT", "GPTConfig", "__version__"]


def __getattr__(name: str) -> Any:
    # GPT pulls in torch; `--help` and the planner should not wait for it.
    if name == "GPT":
        from nanogpt2.model.gpt import GPT

        return GPT
    if name == "__version__":
        return metadata.version("nanogpt2")
    raise AttributeError(f"module 'nanogpt2' has no attribute {name!r}")
