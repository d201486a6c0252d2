"""What can be asked of a training: a number each, and what asking costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt2.inference.generation import generate
from nanogpt2.inference.kv_cache import KVCache
from nanogpt2.lab.probing import looks_ahead
from nanogpt2.lab.small_data import small_data
from nanogpt2.lab.small_run import small_recipe
from nanogpt2.studies.failure_clinic.runs import Training

PROMPT, WORDS = "The king said to his son, and then the", 24
"""what a model is asked to continue, and by how many tokens"""


@dataclass(frozen=True)
class Measurement:
    """A number that somebody can ask of a training."""

    name: str
    minutes: int
    """what it costs in this clinic, of the time of whoever asks"""
    of: Callable[[Training], float]
    form: str = ".3g"


def _validation(training: Training, rows: int) -> tuple[Tensor, Tensor]:
    return small_data().validation(rows, training.setting.config.sequence_len)


def unmoved(training: Training) -> float:
    """Share of the tensors that are what they were at the start."""
    now = dict(training.model.named_parameters())
    same = [torch.equal(now[name], was) for name, was in training.start.items()]
    return sum(same) / len(same)


def parameters(training: Training) -> float:
    """Numbers that the optimizer moves."""
    return float(training.trained)


def follows(training: Training) -> float:
    """Share of the targets that are the next input of their row."""
    x, y = training.batches[0]
    return float((y[:, :-1] == x[:, 1:]).float().mean())


def read_before(training: Training) -> float:
    """Share of the last batch's rows that an earlier batch had."""
    *earlier, last = (batch[0] for batch in training.batches)
    seen = {tuple(row.tolist()) for batch in earlier for row in batch}
    return sum(tuple(row.tolist()) in seen for row in last) / len(last)


def future(training: Training) -> float:
    """Largest change of earlier logits when the last token of a row is another."""
    return looks_ahead(training.model, small_data())


@torch.no_grad()
def reach(training: Training) -> float:
    """How many tokens before the last one can change its logits."""
    row = _validation(training, 1)[0]
    T = row.size(1)
    others = row.repeat(T, 1)
    others.diagonal().copy_((row[0] + 1) % training.setting.config.vocab_size)
    whole, changed = training.model(row)[0, -1], training.model(others)[:, -1]
    moved = ((changed - whole).abs().amax(1) > 1e-6).nonzero()
    return float(T - 1 - int(moved.min()))


@torch.no_grad()
def after_bos(training: Training) -> float:
    """Nats of the first token of a held-out document, with nothing but <|bos|> before it."""
    data = small_data()
    at = np.flatnonzero(data.val[:-1] == data.tokenizer.bos_id)
    first = torch.from_numpy(data.val[at + 1].astype(np.int64))
    logits = training.model(torch.full((1, 1), data.tokenizer.bos_id))[0, 0]
    return float(F.cross_entropy(logits.expand(len(first), -1), first))


def written(training: Training) -> str:
    """What the model writes after ``PROMPT``."""
    text = small_data().tokenizer.decode(_continued(training)[-WORDS:])
    return "".join(c if c.isprintable() else " " for c in text)


def echo(training: Training) -> float:
    """Share of what the model writes that is the token two places before, and not one before."""
    tokens = _continued(training)
    return sum(tokens[i - 1] != tokens[i] == tokens[i - 2] for i in range(-WORDS, 0)) / WORDS


def _continued(training: Training) -> list[int]:
    tokenizer = small_data().tokenizer
    prompt = [tokenizer.bos_id, *tokenizer.encode(PROMPT)]
    (tokens,) = generate(training.model, [prompt], WORDS, temperature=0.7, top_k=20, seed=1)
    return [*prompt, *tokens]


@torch.no_grad()
def decoded(training: Training) -> float:
    """Nats per token of rows read token by token with a cache, over those of whole rows."""
    x, y = _validation(training, 8)
    x, y = x[:, :64], y[:, :64]
    cache = KVCache(training.model.config, len(x), x.size(1))
    steps = torch.cat([training.model(token, cache=cache) for token in x.split(1, dim=1)], dim=1)
    alone = F.cross_entropy(steps.flatten(0, 1), y.flatten())
    return float(alone - training.model(x, y))


def step_size(training: Training) -> float:
    """Muon's rate half way, over the recipe's."""
    rates = training.series("rate")
    return rates[len(rates) // 2 - 1] / small_recipe().muon.lr


def last_rate(training: Training) -> float:
    """The last step's rate over the largest."""
    rates = training.series("rate")
    return rates[-1] / max(rates)


def leap(training: Training) -> float:
    """Nats by which the first loss after half time is above the last before."""
    losses = training.series("loss")
    return losses[len(losses) // 2] - losses[len(losses) // 2 - 1]


MENU = {
    "norm": Measurement("norm of the gradient, last steps", 1, lambda t: t.end("norm")),
    "half": Measurement("rate half way, over the recipe's", 1, step_size),
    "leap": Measurement("change of the loss at half time", 1, leap, ".2f"),
    "last": Measurement("last rate over the highest", 1, last_rate),
    "follows": Measurement("targets that are the next input", 2, follows, ".0%"),
    "read": Measurement("rows of the last batch read before", 5, read_before, ".0%"),
    "parameters": Measurement("numbers that the optimizer moves", 2, parameters, ",.0f"),
    "unmoved": Measurement("tensors that are as at the start", 5, unmoved, ".0%"),
    "echo": Measurement("written tokens as two before, not one", 3, echo, ".0%"),
    "bos": Measurement("loss of a document's first token", 5, after_bos),
    "reach": Measurement("tokens back that reach the last logits", 10, reach, ".0f"),
    "future": Measurement("change of logits by a later token", 10, future),
    "decoded": Measurement("loss token by token, less whole rows", 15, decoded),
}
"""what each case offers: the log, the rows, the weights, the model"""


def examined(training: Training) -> dict[str, float]:
    """Every number of ``MENU``."""
    return {key: measurement.of(training) for key, measurement in MENU.items()}
