"""One pass over shared beginnings and their endings: a cache that lets endings not see each other.

It obeys the model's cache protocol (``nanogpt2.model.attention.Cache``), for one forward pass over
a whole ``Batch``. An ending's token sees the row's prefix and its own ending, at the positions it
would have in a sequence of its own, through the layer's window. Tree attention of this kind is
described for decoding by Cai et al. (Medusa, arXiv 2401.10774). Chapter: core.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt2.evals.core.layout import Batch
from nanogpt2.kernels.attention import attention


class SharedPrefix:
    """Positions, attention and neighbours of a batch's columns: prefixes (P), then endings (S)."""

    def __init__(self, batch: Batch, device: torch.device, backend: str = "auto") -> None:
        self.width, self.backend = batch.prefix_width, backend
        self.lengths_B = torch.from_numpy(batch.prefix_lengths).to(device)
        self.segments_BS = torch.from_numpy(batch.segments).to(device)
        offsets_BS = torch.from_numpy(batch.offsets).to(device)
        self.ending_positions_BS = self.lengths_B[:, None] + offsets_BS
        self.first_BS = offsets_BS == 0
        self.masks: dict[int, Tensor] = {}

    def positions(self, n_tokens: int) -> Tensor:
        """(B, P + S): an ending goes on where its row's prefix ends."""
        height, endings = self.segments_BS.shape
        assert n_tokens == self.width + endings, "one pass over the whole batch"
        prefix = torch.arange(self.width, device=self.lengths_B.device).expand(height, -1)
        return torch.cat((prefix, self.ending_positions_BS), dim=1)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        """q (B, P + S, H, D), k and v (B, P + S, K, D) -> (B, P + S, H, D)."""
        P = self.width
        prefix = attention(q[:, :P], k[:, :P], v[:, :P], window, backend=self.backend)
        queries = q[:, P:].transpose(1, 2)
        shared = q.size(2) // k.size(2)  # query heads to a key head
        keys, values = (x.transpose(1, 2) for x in (k, v))
        if shared > 1:
            keys, values = (x.repeat_interleave(shared, dim=1) for x in (keys, values))
        endings = F.scaled_dot_product_attention(queries, keys, values, attn_mask=self.mask(window))
        return torch.cat((prefix, endings.transpose(1, 2)), dim=1)

    def mask(self, window: int) -> Tensor:
        """(B, 1, S, P + S): what a token of an ending may see; the same for layers of a window."""
        if window not in self.masks:
            here = self.ending_positions_BS[:, :, None]
            column = torch.arange(self.width, device=here.device)
            prefix = (column < self.lengths_B[:, None, None]) & (here - column <= window)
            away = here - self.ending_positions_BS[:, None, :]
            own = self.segments_BS[:, :, None] == self.segments_BS[:, None, :]
            # padding columns (segment -1) see one another: a row of the mask is never empty
            own = own & (away >= 0) & (away <= window)
            self.masks[window] = torch.cat((prefix, own), dim=2)[:, None]
        return self.masks[window]

    def previous_embedding(self, x: Tensor) -> Tensor:
        """x (B, P + S, C) of the token before; zeros before the first, the prefix's last before
        an ending."""
        late = F.pad(x[:, :-1], (0, 0, 1, 0))
        if self.first_BS.size(1):
            last = x.gather(1, (self.lengths_B - 1)[:, None, None].expand(-1, 1, x.size(2)))
            late[:, self.width :] = torch.where(
                self.first_BS[..., None], last, late[:, self.width :]
            )
        return late

    def advance(self, n_tokens: int) -> None:
        """Nothing is kept for a next pass."""
