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

import torch
from torch import Tensor

from nanogpt2.config import GPTConfig
from nanogpt2.errors import UserError
from nanogpt2.kernels.attention import attention
from nanogpt2.kernels.portable import shared_attention


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
    (B, _, H, D), S = q_B1HD.shape, k_BKSD.size(2)
    seen_BS = None
    if lengths_B is not None:
        seen_BS = torch.arange(S, device=q_B1HD.device) < lengths_B[:, None]
    if q_B1HD.device.type != "cpu" or q_B1HD.dtype != torch.bfloat16:
        mask = None if seen_BS is None else seen_BS[:, None, None]
        return shared_attention(q_B1HD, k_BKSD.transpose(1, 2), v_BKSD.transpose(1, 2), mask)
    q = q_B1HD.view(B, k_BKSD.size(1), -1, 1, D)
    scores = (k_BKSD[:, :, None] * q).sum(dim=-1, dtype=torch.float32) * D**-0.5
    if seen_BS is not None:
        scores = scores.masked_fill(~seen_BS[:, None, None], float("-inf"))
    return (scores.softmax(dim=-1).to(v_BKSD.dtype) @ v_BKSD).view(B, 1, H, D)


class KVCache:
    """Keys and values of ``batch_size`` texts, by the protocol ``nanogpt2.model.attention.Cache``.

    Texts of one length take any number of new tokens at a time. Texts of different lengths are read
    each into a cache of its own and ``put`` together; they go on a token at a time.
    Buffers take the dtype of the first keys.

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
        self.config, self.capacity, self.device = config, capacity, device
        # Tokens of each row, on the host, so that no decision waits for the device.
        self.lengths = [0] * batch_size
        self._sizes = ring_sizes(config, capacity)
        # By layer its keys and values, (2, B, K, slots, D): one head's slots side by side.
        self._rings: list[Tensor] = []
        self._previous: Tensor | None = None
        # Of the pass that ``positions`` began, by size of ring: where its tokens go.
        self._slots: dict[int, Tensor] = {}
        self._valid: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes held for keys and values."""
        return sum(ring.nbytes for ring in self._rings)

    def positions(self, n_tokens: int) -> Tensor:
        """Absolute positions (B, T) of the next ``n_tokens``; raises UserError beyond capacity."""
        shortest, longest = min(self.lengths), max(self.lengths)
        if n_tokens > 1 and shortest < longest:
            raise ValueError(f"rows of {shortest} to {longest} tokens go on one token at a time")
        if longest + n_tokens > self.capacity:
            raise UserError(
                f"the cache has room for {self.capacity} tokens and the text has "
                f"{longest + n_tokens}; shorten the text or make the cache larger"
            )
        lengths_B = torch.tensor(self.lengths, device=self.device)
        positions_BT = lengths_B[:, None] + torch.arange(n_tokens, device=self.device)
        # Of many new tokens the last: no slot is written twice.
        self._slots = {size: positions_BT[:, -size:] % size for size in {*self._sizes}}
        self._valid = lengths_B + 1 if shortest < longest else None
        return positions_BT

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        """Append k, v (B, T, K, D) to ``layer`` and attend with q (B, T, H, D); (B, T, H, D)."""
        B, T = k.shape[:2]
        size, past = self._sizes[layer], max(self.lengths)
        ring = self._ring(layer, k)
        keys, values = ring[0], ring[1]
        if T > 1:  # the past in order of time, and what is new
            order = torch.arange(max(0, past - size), past, device=k.device) % size
            old_k, old_v = (kept[:, :, order].transpose(1, 2) for kept in (keys, values))
            out = attention(q, torch.cat((old_k, k), 1), torch.cat((old_v, v), 1), window)
        rows, slots = torch.arange(B, device=k.device)[:, None], self._slots[size]
        keys[rows, :, slots] = k[:, -size:].detach()  # kept numbers are no part of a graph
        values[rows, :, slots] = v[:, -size:].detach()
        if T > 1:
            return out
        held = min(past + 1, size)  # no other slot was ever written
        return newest_attention(q, keys[:, :, :held], values[:, :, :held], self._valid)

    def previous_embedding(self, x: Tensor) -> Tensor:
        """x (B, T, C) one token late, with the last token of the call before in front.

        At position 0 that is zeros. Used by smear.
        """
        before = torch.zeros_like(x[:, -1]) if self._previous is None else self._previous
        self._previous = x[:, -1]
        return torch.cat((before[:, None], x[:, :-1]), dim=1)

    def advance(self, n_tokens: int) -> None:
        """All layers have seen these tokens."""
        self.lengths = [length + n_tokens for length in self.lengths]

    def select(self, rows: Sequence[int]) -> KVCache:
        """A new cache of these rows, in this order; a row may come more than once.

        Drops finished texts, and lets one prefix be continued in several ways.
        """
        chosen = KVCache(self.config, len(rows), self.capacity, self.device)
        index = torch.tensor(list(rows), device=self.device)
        chosen.lengths = [self.lengths[row] for row in rows]
        chosen._rings = [ring[:, index] for ring in self._rings]
        chosen._previous = None if self._previous is None else self._previous[index]
        return chosen

    def put(self, rows: Sequence[int], text: KVCache) -> None:
        """Fill ``rows`` with the one row of ``text``, a cache of no more capacity.

        Slots agree: a ring that is smaller than ours has room for the whole text.
        """
        index = torch.tensor(list(rows), device=self.device)
        for layer, kept in enumerate(text._rings):
            self._ring(layer, kept)[:, index, :, : kept.size(3)] = kept
        if text._previous is not None:
            if self._previous is None:
                self._previous = text._previous.repeat(len(self.lengths), 1)
            self._previous[index] = text._previous
        for row in rows:
            self.lengths[row] = text.lengths[0]

    def _ring(self, layer: int, like: Tensor) -> Tensor:
        """Keys and values of ``layer``, at first zeros of the dtype of ``like``."""
        if layer == len(self._rings):
            kv_dim, heads = self.config.kv_dim, self.config.n_kv_head
            shape = (2, len(self.lengths), heads, self._sizes[layer], kv_dim // heads)
            self._rings.append(like.new_zeros(shape))
        return self._rings[layer]
