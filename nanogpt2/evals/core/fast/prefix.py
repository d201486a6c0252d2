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

from nanogpt2.evals.core.fast.layout import Batch
from nanogpt2.kernels.attention import attention
from nanogpt2.kernels.portable import shared_attention
from nanogpt2.kernels.windows import sees


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
        endings = shared_attention(q[:, P:], k, v, self.mask(window))
        return torch.cat((prefix, endings), dim=1)

    def mask(self, window: int) -> Tensor:
        """(B, 1, S, P + S): what a token of an ending may see; the same for layers of a window."""
        if window not in self.masks:
            here, segments = self.ending_positions_BS, self.segments_BS
            column = torch.arange(self.width, device=here.device)
            prefix = sees(here[:, :, None], column, window)
            prefix = prefix & (column < self.lengths_B[:, None, None])
            # padding columns (segment -1) see one another: a row of the mask is never empty
            own = sees(here[:, :, None], here[:, None, :], window)
            own = own & (segments[:, :, None] == segments[:, None, :])
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
