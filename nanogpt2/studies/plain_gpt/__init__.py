"""A plain GPT, and the one dial: what it is made of, what it weighs, how it starts.

Chapter: plain_gpt.
"""

from nanogpt2.studies.plain_gpt.changes import STARTS, heads_cut_across
from nanogpt2.studies.plain_gpt.measures import (
    byte_rows,
    first_gradients,
    first_loss,
    flop_rows,
    gpt2_rows,
    in_torchs_names,
    stirred,
    stream_by_depth,
)
from nanogpt2.studies.plain_gpt.pictures import (
    DEPTHS,
    flow_picture,
    growth_rows,
    scale_frame,
    share_rows,
    start_lines,
)
