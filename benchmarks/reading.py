"""How fast the laptop recipe's model writes a text and, with a bundle, answers CORE.

    python -m benchmarks.reading TOKENIZER [--bundle ../shared/core_eval_bundle]

One line of JSON: tokens a second, and items a second. The weights are start values: the work is the
same.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

from nanogpt2 import GPT, Engine, Tokenizer, dial, evaluate_core, get_recipe
from nanogpt2.errors import run_command

NEW_TOKENS = 300
ITEMS = 3
"""of each task"""


def rate(work: Callable[[], int]) -> float:
    """Things done a second, after a first time that does not count."""
    work()
    began = time.perf_counter()
    done = work() + work()
    return done / (time.perf_counter() - began)


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reading", description=__doc__.splitlines()[0]
    )
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--bundle", type=Path, metavar="DIR")
    options = parser.parse_args()
    tokenizer = Tokenizer.load(options.tokenizer)
    model = GPT(dial(recipe=get_recipe("laptop")).model)
    model.init_weights(seed=0)
    engine = Engine(model, tokenizer)

    def write() -> int:
        engine.complete("The", max_new_tokens=NEW_TOKENS, temperature=0)
        return NEW_TOKENS

    def answer() -> int:
        tasks = evaluate_core(model, tokenizer, options.bundle, max_per_task=ITEMS).tasks
        return ITEMS * len(tasks)

    found = {"sampling": rate(write)}
    if options.bundle:
        found["CORE"] = rate(answer)
    print(json.dumps(found))


if __name__ == "__main__":
    run_command(main)
