"""Ideas that the records left out, where no switch of the recipe says them: the code, changed.

Each is the plainest form that the model can take; none was tuned for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanogpt2.data.tokenizer import SPECIAL_TOKENS
from nanogpt2.kernels.windows import window_mask
from nanogpt2.lab.seams import Patch, patched
from nanogpt2.lab.variants import bigram_rows
from nanogpt2.model.gpt import GPT
from nanogpt2.model.linear import Linear
from nanogpt2.model.norm import rms_norm
from nanogpt2.model.rope import rotate
from nanogpt2.optim.sharded import Stack

PAIR_ROWS = 8
"""rows of the table of pairs, for each token of the vocabulary"""


def half_rotary() -> Patch:
    """Half of each head's channels turn, as a head half as wide would; the others stand still."""

    def half(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        turned, still = x.chunk(2, dim=-1)
        return torch.cat((rotate(turned, cos[..., ::2], sin[..., ::2]), still), dim=-1)

    return patched("nanogpt2.model.attention.rotate", half)


@contextmanager
def inside_documents() -> Iterator[None]:
    """No token sees one of another document: what varlen kernels compute, by a mask."""
    document = [torch.empty(0)]
    whole = GPT.hidden

    def hidden(model: GPT, idx: Tensor, cache: Any = None) -> Tensor:
        bos = model.config.vocab_size - len(SPECIAL_TOKENS)  # the first of those, which come last
        document[0] = (idx == bos).cumsum(dim=1)
        return whole(model, idx, cache)

    def attention(q: Tensor, k: Tensor, v: Tensor, window: int, backend: str = "auto") -> Tensor:
        T, same = q.size(1), document[0][:, None, :, None] == document[0][:, None, None, :]
        seen = window_mask(T, T, window, q.device) & same
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2)

    with ExitStack() as stack:
        stack.enter_context(patched("nanogpt2.model.gpt.GPT.hidden", hidden))
        stack.enter_context(patched("nanogpt2.model.attention.attention", attention))
        yield


@contextmanager
def two_at_once() -> Iterator[None]:
    """In training, one matrix more reads from each state the token after the next; losses add."""
    start, one = GPT.init_weights, GPT.loss

    def init_weights(model: GPT, seed: int = 0) -> None:
        width = model.config.n_embd
        model.further = Linear(width, width, bias=False)
        start(model, seed)
        with torch.no_grad():
            model.further.weight.zero_()  # at first both are guessed from the same state

    def loss(model: GPT, hidden: Tensor, targets: Tensor, loss_reduction: str = "mean") -> Tensor:
        found = one(model, hidden, targets, loss_reduction)
        if not model.training:
            return found
        further = cast(Linear, model.further)
        ahead = rms_norm(hidden + further(hidden))[:, :-1]
        return found + one(model, ahead, targets[:, 1:], loss_reduction)

    with ExitStack() as stack:
        stack.enter_context(patched("nanogpt2.model.gpt.GPT.init_weights", init_weights))
        stack.enter_context(patched("nanogpt2.model.gpt.GPT.loss", loss))
        yield


def adamw_every_second() -> Patch:
    """AdamW's parameters move at every second step, by the mean gradient of both.

    Their batch is then twice as large, and so their rates grow by the root of two, the run's own
    rule.
    """
    update, first = Stack.update, dict[Stack, Tensor]()

    def every_second(stack: Stack, steps: Any, measure: bool) -> None:
        group = stack.group
        if group["kind"] != "adamw":
            return update(stack, steps, measure)
        parameter = stack.params[0]
        if group["step"] % 2:
            first[stack] = stack.gradients().clone()
            return None
        parameter.grad = (first.pop(stack) + stack.gradients()) / 2
        whole = {"step": group["step"], "lr": group["lr"]}
        group.update(step=group["step"] // 2, lr=2**0.5 * group["lr"])
        update(stack, steps, measure)
        group.update(whole)
        return None

    return patched("nanogpt2.optim.sharded.Stack.update", every_second)


class WithPairs(nn.Embedding):
    """A token's row, and a row for it and the token before it, by a hash of both."""

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__(table.num_embeddings, table.embedding_dim)
        self.pairs = nn.Embedding(PAIR_ROWS * table.num_embeddings, table.embedding_dim)

    def forward(self, idx: Tensor) -> Tensor:
        """(B, T) -> (B, T, C)."""
        return super().forward(idx) + self.pairs(bigram_rows(idx, self.pairs.num_embeddings))


def bigram_table() -> Patch:
    """Pairs have rows of their own beside the token table's, empty at the start."""
    start = GPT.init_weights

    def init_weights(model: GPT, seed: int = 0) -> None:
        if not isinstance(model.wte, WithPairs):
            model.transformer["wte"] = WithPairs(model.wte)
        start(model, seed)
        with torch.no_grad():
            cast(WithPairs, model.wte).pairs.weight.zero_()

    return patched("nanogpt2.model.gpt.GPT.init_weights", init_weights)
