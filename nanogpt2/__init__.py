"""nanogpt2: the trainer behind the book, from documents to a model as good as GPT-2.

Its rooms stand in ``README.md`` in the order of their imports: each takes from those before it.
What a script of one's own needs of them stands here too, and is imported when it is first asked
for: ``--help`` and the planner should not wait for torch.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Threads wait for each other thousands of times a second. One that spins meanwhile takes the core
# from whoever would let it go on, once anything else runs on the machine; one that sleeps at once
# wakes late. So: spin for some microseconds, then sleep (benchmarks/busy.py). Read by the OpenMP
# that comes with torch when it is loaded.
BRIEF = (
    "1000"  # with ten times that, CORE and samples kept 0.4 of their speed beside busy processes
)
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", BRIEF)

if TYPE_CHECKING:
    from nanogpt2.config import GPTConfig
    from nanogpt2.data.prepare import prepare
    from nanogpt2.data.texts import text_batches
    from nanogpt2.data.tokenizer import Tokenizer
    from nanogpt2.depth import dial
    from nanogpt2.evals.bits_per_byte import bits_per_byte
    from nanogpt2.evals.core import evaluate_core
    from nanogpt2.inference.engine import Engine
    from nanogpt2.model.gpt import GPT
    from nanogpt2.optim import build_optimizer
    from nanogpt2.recipes import Recipe, get_recipe
    from nanogpt2.run import Loop, Run
    from nanogpt2.training.fit import fit
    from nanogpt2.training.loading import load_model
    from nanogpt2.training.trainer import train

    __version__: str

__all__ = [
    "GPT",
    "Engine",
    "GPTConfig",
    "Loop",
    "Recipe",
    "Run",
    "Tokenizer",
    "__version__",
    "bits_per_byte",
    "build_optimizer",
    "dial",
    "evaluate_core",
    "fit",
    "get_recipe",
    "load_model",
    "prepare",
    "text_batches",
    "train",
]
_HOMES = {
    "GPT": "model.gpt",
    "Engine": "inference.engine",
    "GPTConfig": "config",
    "Loop": "run",
    "Recipe": "recipes",
    "Run": "run",
    "Tokenizer": "data.tokenizer",
    "bits_per_byte": "evals.bits_per_byte",
    "build_optimizer": "optim",
    "dial": "depth",
    "evaluate_core": "evals.core",
    "fit": "training.fit",
    "get_recipe": "recipes",
    "load_model": "training.loading",
    "prepare": "data.prepare",
    "text_batches": "data.texts",
    "train": "training.trainer",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("nanogpt2")
    if name not in _HOMES:
        raise AttributeError(f"module 'nanogpt2' has no attribute {name!r}")
    return getattr(import_module(f"nanogpt2.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
