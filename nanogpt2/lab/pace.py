"""How fast this machine is: the length of a chapter's live runs, and the seconds it may take.

Both are stated for a named speed: ten training steps a second of the book's small model, by one
thread in fp32. A server core with AVX512 makes more; one with AVX2 alone, or one that is shared
with others, makes a few.
"""

from __future__ import annotations

import functools
import statistics
import time

import torch

from nanogpt2.lab.small_run import small_config, small_recipe
from nanogpt2.lab.timing import torch_threads
from nanogpt2.model.gpt import GPT
from nanogpt2.optim import build_optimizer
from nanogpt2.training.fit import fit

NAMED = 10.0
"""steps a second of the machine that budgets are stated for"""
LENGTHS = {"ci": 100, "laptop": 1000, "h100": 5000}
"""steps of a chapter's live runs, by scale"""


def steps_per_second(steps: int = 12) -> float:
    """Of the book's small model on this machine now, by one thread; the median step counts."""
    config, recipe = small_config(), small_recipe()
    model = GPT(config)
    optimizer = build_optimizer(model, recipe, dtype=torch.float32)
    tokens = torch.arange(8 * (config.sequence_len + 1)).view(8, -1) % config.vocab_size
    batches = [(tokens[:, :-1], tokens[:, 1:])] * steps
    times = [time.perf_counter()]
    with torch_threads(1):
        clock = [lambda point: times.append(time.perf_counter())]
        fit(model, optimizer, batches, steps, recipe, callbacks=clock)
    return 1 / statistics.median(b - a for a, b in zip(times, times[1:], strict=False))


def slowness() -> float:
    """How many times as long as on the named machine something takes here now, at least 1."""
    return max(1.0, NAMED / steps_per_second())


@functools.cache
def live_steps(scale: str) -> int:
    """How many steps a chapter's live runs have: half as many on a machine half as fast.

    Only at the scale "ci", whose runs show a mechanism and must end within minutes.
    """
    return LENGTHS[scale] // (2 if scale == "ci" and slowness() > 2 else 1)
