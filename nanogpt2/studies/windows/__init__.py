"""Sliding windows and FlashAttention: masks, reach, tiles, rings, and what each costs.

Chapter: windows.
"""

from nanogpt2.lab.probing import looks_ahead
from nanogpt2.studies.windows.changes import leaking_mask, one_key_short
from nanogpt2.studies.windows.measures import (
    cache_rows,
    dispatch_rows,
    influence,
    model_seconds,
    off_by_one,
    pairs,
    pattern_rows,
    time_attention,
)
from nanogpt2.studies.windows.pictures import (
    mask_frame,
    one_query,
    reach_frame,
    ring_frame,
    tiles_frame,
)
