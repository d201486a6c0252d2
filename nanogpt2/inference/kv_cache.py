"""A cache of keys and values in which every layer keeps only what its window can see.

Generating token by token, the keys and values of earlier tokens never change, so each step computes
one token's worth of products and reads the rest from here. A layer with window w needs the w keys
before a query and the query's own: its buffer is a ring of w + 1 slots, and the token at position
p lies in slot p mod (w + 1). Attention does not care in which order keys are stored, so a full ring
is read as it lies. Source: rolling buffer cache (Mistral 7B, arXiv 2310.06825, section 2); grouped
queries shrink it further (Ainslie et al., arXiv 2305.13245). Chapter: windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nanogpt2.config import GPTConfig
from nanogpt2.errors import UserError
from nanogpt2.kernels.attention import attention, cached_attention


def ring_sizes(config: GPTConfig, capacity: int) -> list[int]:
    """Slots of every layer's ring for texts of up to ``capacity`` tokens."""
    return [min(left + 1, capacity) for left, _ in config.window_sizes()]


def cache_bytes(config: GPTConfig, batch_size: int, capacity: int, bytes_per_value: int = 2) -> int:
    """Bytes of a cache by formula: two tensors of B x slots x K x D a layer (bf16 by default)."""
    slots = sum(ring_sizes(config, capacity))
    return 2 * batch_size * slots * config.kv_dim * bytes_per_value


def newest_attention(
    q_B1HD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, lengths_B: Tensor | None
) -> Tensor:
    """The newest token's attention over its ring, all of which lies in its window; (B, 1, H, D).

    ``lengths_B``: how many slots are valid (the first ones), None: all. On processors bf16
    products are formed here, with scores in fp32: torch's kernel repacks all keys for each query
    and takes two to five times as long.
    """
    if q_B1HD.device.type != "cpu" or q_B1HD.dtype != torch.bfloat16:
        k, v, held = k_BKSD.transpose(1, 2), v_BKSD.transpose(1, 2), k_BKSD.size(2)
        if lengths_B is None:
            return attention(q_B1HD, k, v, held)
        return cached_attention(q_B1HD, k, v, lengths_B, held)
    B, _, H, D = q_B1HD.shape
    q = q_B1HD.view(B, k_BKSD.size(1), -1, 1, D)
    scores = (k_BKSD[:, :, None] * q).sum(dim=-1, dtype=torch.float32) * D**-0.5
    if lengths_B is not None:
        invalid = torch.arange(k_BKSD.size(2)) >= lengths_B[:, None]
        scores = scores.masked_fill(invalid[:, None, None], float("-inf"))
    return (scores.softmax(dim=-1).to(v_BKSD.dtype) @ v_BKSD).view(B, 1, H, D)


@dataclass
class _Plan:
    """Where the tokens of one forward pass go in rings of one size, and what they attend to."""

    rows: Tensor
    tokens: Tensor
    slots: Tensor
    """(n,) each: token ``tokens[i]`` of row ``rows[i]`` is written to slot ``slots[i]``"""
    gather: Tensor | None = None
    """(B, P + T): past keys in order of time, then new ones, out of [ring, new]; None: no past"""
    lengths: Tensor | None = None
    """(B,): how many entries of ``gather`` are valid"""


class KVCache:
    """Keys and values of ``batch_size`` texts that may differ in length.

    The model calls ``positions``, ``attend``, ``previous_embedding`` and ``advance`` (the protocol
    ``nanogpt2.model.attention.Cache``). New tokens of texts with different lengths come padded on
    the right; ``expect`` says beforehand how many of each row are real. Outputs at padded places
    mean nothing, and padding leaves no trace. Buffers take the dtype of the first keys.

    Args:
        config: the model's configuration, for its windows.
        batch_size: B, rows.
        capacity: the most tokens that a row will ever hold.
        device: where the model is.
    """

    def __init__(
        self,
        config: GPTConfig,
        batch_size: int,
        capacity: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config, self.batch_size, self.capacity = config, batch_size, capacity
        self.lengths = torch.zeros(batch_size, dtype=torch.long, device=device)
        # The same on the host, so that no decision waits for the device.
        self._lengths = [0] * batch_size
        self._counts: list[int] | None = None
        # Keys and values (B, K, slots, D): one head's slots side by side.
        self._rings: list[tuple[Tensor, Tensor] | None] = [None] * config.n_layer
        self._sizes = ring_sizes(config, capacity)
        self._plans: dict[int, _Plan] = {}
        self._previous: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes held for keys and values."""
        return sum(part.nbytes for ring in self._rings if ring is not None for part in ring)

    def expect(self, counts: Sequence[int]) -> None:
        """Of the next forward pass's tokens, only the first ``counts[b]`` of row b are real."""
        if len(counts) != self.batch_size:
            raise ValueError(f"{len(counts)} counts for a cache of {self.batch_size} rows")
        self._counts = list(counts)

    def positions(self, n_tokens: int) -> Tensor:
        """Absolute positions (B, T) of the next ``n_tokens``; raises UserError beyond capacity."""
        longest = max(n + c for n, c in zip(self._lengths, self._new(n_tokens), strict=True))
        if longest > self.capacity:
            raise UserError(
                f"the cache has room for {self.capacity} tokens and the text has {longest}; "
                "shorten the text or make the cache larger"
            )
        step = torch.arange(n_tokens, device=self.lengths.device)
        # Padding may reach beyond the last position: any valid one will do for it.
        return (self.lengths[:, None] + step).clamp(max=self.capacity - 1)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        """Append k, v (B, T, K, D) to ``layer`` and attend with q (B, T, H, D); (B, T, H, D)."""
        T = q.size(1)
        keys, values = self._ring(layer, k)
        size = self._sizes[layer]
        plan = self._plans.get(size)
        if plan is None:
            plan = self._plans[size] = self._plan(size, T)
        past = max(self._lengths)
        if T == 1:
            self._write(plan, keys, values, k, v)
            held = min(past + 1, size)  # no other slot was ever written
            same = self._counts is None and min(self._lengths) == past
            lengths = None if same else (self.lengths + 1).clamp(max=held)
            return newest_attention(q, keys[:, :, :held], values[:, :, :held], lengths)
        if past == 0:  # padding stands to the right of all that a real token sees
            out = attention(q, k, v, window)
        else:
            assert plan.gather is not None and plan.lengths is not None
            every = torch.arange(self.batch_size, device=q.device)[:, None]
            all_k = torch.cat((keys, k.transpose(1, 2)), dim=2)[every, :, plan.gather]
            all_v = torch.cat((values, v.transpose(1, 2)), dim=2)[every, :, plan.gather]
            if min(self._lengths) == past:
                out = attention(q, all_k, all_v, window)
            else:
                out = cached_attention(q, all_k, all_v, plan.lengths, window)
        self._write(plan, keys, values, k, v)
        return out

    def previous_embedding(self, x: Tensor) -> Tensor:
        """x (B, T, C) one token late, with the last real token of the call before in front.

        At position 0 that is zeros. Used by smear.
        """
        B, T, _ = x.shape
        before = x.new_zeros(x[:, 0].shape) if self._previous is None else self._previous
        late = torch.cat((before[:, None], x[:, :-1]), dim=1)
        if self._counts is None:
            self._previous = x[:, -1]
        else:
            last = torch.tensor(self._counts, device=x.device)
            every = torch.arange(B, device=x.device)
            self._previous = torch.where(
                (last > 0)[:, None], x[every, (last - 1).clamp(min=0)], before
            )
        return late

    def advance(self, n_tokens: int) -> None:
        """All layers have seen these tokens."""
        counts = self._new(n_tokens)
        self._lengths = [n + c for n, c in zip(self._lengths, counts, strict=True)]
        if self._counts is None:
            self.lengths = self.lengths + n_tokens
        else:
            self.lengths = self.lengths + torch.tensor(counts, device=self.lengths.device)
        self._counts = None
        self._plans = {}

    def select(self, rows: Sequence[int]) -> KVCache:
        """A new cache of these rows, in this order; a row may come more than once.

        Drops finished texts, and lets one prefix be continued in several ways.
        """
        chosen = KVCache(self.config, len(rows), self.capacity, self.lengths.device)
        index = torch.tensor(list(rows), dtype=torch.long, device=self.lengths.device)
        chosen.lengths = self.lengths[index]
        chosen._lengths = [self._lengths[row] for row in rows]
        chosen._rings = [
            None if ring is None else (ring[0][index], ring[1][index]) for ring in self._rings
        ]
        chosen._previous = None if self._previous is None else self._previous[index]
        return chosen

    def _new(self, n_tokens: int) -> list[int]:
        """Real tokens of each row in this pass."""
        counts = [n_tokens] * self.batch_size if self._counts is None else self._counts
        if max(counts) > n_tokens or min(counts) < 0:
            raise ValueError(f"counts {counts} do not fit a pass of {n_tokens} tokens")
        return counts

    def _ring(self, layer: int, k: Tensor) -> tuple[Tensor, Tensor]:
        ring = self._rings[layer]
        if ring is None:
            shape = (self.batch_size, k.size(2), self._sizes[layer], k.size(3))
            ring = self._rings[layer] = (k.new_zeros(shape), k.new_zeros(shape))
        return ring

    def _plan(self, size: int, n_tokens: int) -> _Plan:
        device = self.lengths.device
        step = torch.arange(n_tokens, device=device)
        if n_tokens == 1 and self._counts is None:  # decoding, where nonzero() would wait
            rows = torch.arange(self.batch_size, device=device)
            tokens = torch.zeros_like(rows)
        else:
            counts = torch.tensor(self._new(n_tokens), device=device)[:, None]
            # Real tokens, and of these the last ``size``: no slot is written twice.
            rows, tokens = ((step < counts) & (step >= counts - size)).nonzero(as_tuple=True)
        plan = _Plan(rows, tokens, (self.lengths[rows] + tokens) % size)
        past = min(max(self._lengths), size)
        if past and n_tokens > 1:
            kept = self.lengths.clamp(max=size)[:, None]
            entry = torch.arange(past + n_tokens, device=device)
            old = (self.lengths[:, None] - kept + entry) % size
            new = (size + entry - kept).clamp(max=size + n_tokens - 1)
            plan.gather = torch.where(entry < kept, old, new)
            plan.lengths = kept[:, 0] + n_tokens
        return plan

    @staticmethod
    def _write(plan: _Plan, keys: Tensor, values: Tensor, k: Tensor, v: Tensor) -> None:
        keys[plan.rows, :, plan.slots] = k[plan.rows, plan.tokens]
        values[plan.rows, :, plan.slots] = v[plan.rows, plan.tokens]
