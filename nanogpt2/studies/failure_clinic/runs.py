"""The trainings of the clinic: small, live, and kept with all that a measurement may ask for."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace  # noqa: F401 (a flipped line uses replace)
from functools import cache, partial
from itertools import count
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from nanogpt2.config import GPTConfig
from nanogpt2.data.texts import text_batches
from nanogpt2.lab.seams import Flip
from nanogpt2.lab.small_data import small_data
from nanogpt2.lab.small_run import small_config, small_recipe
from nanogpt2.lab.timing import torch_threads
from nanogpt2.model.gpt import GPT
from nanogpt2.optim import MuonAdamW, build_optimizer
from nanogpt2.training.fit import Point, every, fit

ROWS = 8
"""of a step, for which the rates of ``small_recipe`` are meant"""
HELD_OUT_ROWS = 24
PACKED_TOKENS = 400_000
"""of the training stream, taken apart into documents again where a run packs rows itself"""
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Setting:
    """What a training of the clinic is asked for, beside its length and seed."""

    config: GPTConfig = field(default_factory=lambda: small_config(2))
    rows: int = ROWS
    packed: bool = False
    """rows are packed from whole documents, rather than cut from a stream"""
    resumed: bool = False
    """it stops half way and goes on from its weights"""
    ranks: int = 1


@dataclass
class Training:
    """A finished training."""

    setting: Setting
    seed: int
    log: list[dict[str, float]]
    """a step: step, loss (nats per token), norm (of the gradient), rate (of Muon)"""
    held_out: list[tuple[int, float]]
    """now and then: step, nats per token"""
    model: GPT
    start: dict[str, Tensor]
    """the parameters before the first step"""
    trained: int
    """numbers in the optimizer's groups"""
    batches: list[Batch]

    def series(self, name: str) -> list[float]:
        """One column of the log."""
        return [line[name] for line in self.log]

    def end(self, name: str) -> float:
        """Mean of a column over the last tenth of the steps."""
        tail = self.series(name)[-max(1, len(self.log) // 10) :]
        return sum(tail) / len(tail)


def rate_factor(rows: int) -> float:
    """How many times the rates for ``ROWS`` rows a step of ``rows`` takes."""
    return math.sqrt(rows / ROWS)


def resumed(config: GPTConfig, weights: dict[str, Tensor]) -> GPT:
    """A model that goes on from ``weights``."""
    model = GPT(config)
    model.load_state_dict(weights, strict=False)
    return model


def carry_state(before: MuonAdamW, after: MuonAdamW, step: int) -> None:
    """The optimizer's state comes back too; a parameter that was not there begins with zeros."""
    shares = ((name, state) for name, _, _, state in before.shard_state())
    kept = {(name, key): tensor for name, state in shares for key, tensor in state.items()}
    after.load_shards(lambda name, key, *_: kept.get((name, key), torch.zeros(())), step)


def train(setting: Setting, steps: int, seed: int, flip: Flip | None = None) -> Training:
    """Train on one thread, with ``flip`` in the code where one is given."""
    if setting.ranks > 1:
        return _on_ranks(setting, steps, seed, flip)
    if flip is None:
        return _healthy(setting, steps, seed)
    with flip(), torch_threads(1):
        return _train(setting, steps, seed)


@cache
def _healthy(setting: Setting, steps: int, seed: int) -> Training:
    with torch_threads(1):
        return _train(setting, steps, seed)


def _train(setting: Setting, steps: int, seed: int, rank: int = 0) -> Training:
    recipe, data = small_recipe(), small_data(setting.config.vocab_size)
    model = GPT(setting.config)
    model.init_weights(seed)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    log: list[dict[str, float]] = []
    held_out: list[tuple[int, float]] = []
    read: list[Batch] = []

    def batches() -> Iterator[Batch]:
        for x, y in _feed(setting, seed):
            read.append((x, y))
            share = len(x) // setting.ranks
            yield x[rank * share :][:share], y[rank * share :][:share]

    def note(point: Point) -> None:
        told = torch.tensor([point["loss"] / setting.ranks, float(optimizer.gradient_square())])
        if setting.ranks > 1:
            dist.all_reduce(told)
        muon = next(g for g in optimizer.param_groups if g["kind"] == "muon")
        loss, square = told.tolist()
        line = {"step": point["step"], "loss": loss, "norm": square**0.5, "rate": muon["lr"]}
        log.append(line)

    @torch.no_grad()
    def evaluate(point: Point) -> None:
        x, y = data.validation(HELD_OUT_ROWS, setting.config.sequence_len)
        held_out.append((point["step"], float(model(x, y))))

    def ended(last: int) -> bool:
        return len(log) == last

    before: MuonAdamW | None = None
    stream, halves = batches(), (0, steps // 2, steps) if setting.resumed else (0, steps)
    for first, last in zip(halves, halves[1:], strict=False):
        if before:
            model = resumed(setting.config, model.state_dict())
        optimizer = build_optimizer(model, recipe, lr_scale=rate_factor(setting.rows))
        if before:
            carry_state(before, optimizer, first)
        before = optimizer
        optimizer.measure_gradient = True
        fit(
            model, optimizer, stream, steps, recipe, first_step=first,
            callbacks=(note, every(max(1, steps // 10), evaluate)),
            stop=partial(ended, last),
        )  # fmt: skip
    trained = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    return Training(setting, seed, log, held_out, model.eval(), start, trained, read)


def _feed(setting: Setting, seed: int) -> Iterator[Batch]:
    """Inputs and targets (B, T) of step after step."""
    data, T = small_data(setting.config.vocab_size), setting.config.sequence_len
    if not setting.packed:
        return (data.batch(step, setting.rows, T, seed) for step in count())
    texts = documents(data.train[:PACKED_TOKENS], seed)
    return text_batches(texts, data.tokenizer, setting.rows, T)


def documents(stream: np.ndarray, seed: int) -> list[str]:
    """The texts of a stream of tokens, in an order of the seed."""
    tokenizer = small_data().tokenizer
    cuts = np.flatnonzero(stream == tokenizer.bos_id)
    texts = [tokenizer.decode(part[1:].tolist()) for part in np.split(stream, cuts)[1:]]
    return [texts[i] for i in np.random.default_rng(seed).permutation(len(texts))]


def _on_ranks(setting: Setting, steps: int, seed: int, flip: Flip | None) -> Training:
    """The same by several processes over gloo, each with its share of the rows."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(setting.ranks, get_context("spawn")) as pool,
    ):
        meet = f"file://{Path(folder) / 'meet'}"
        one = partial(_of_rank, setting, steps, seed, flip, meet)
        return list(pool.map(one, range(setting.ranks)))[0]


def _of_rank(
    setting: Setting, steps: int, seed: int, flip: Flip | None, meet: str, rank: int
) -> Training:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=setting.ranks)
    try:
        with flip() if flip else nullcontext():
            return _train(setting, steps, seed, rank)
    finally:
        dist.destroy_process_group()
