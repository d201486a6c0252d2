"""RMSNorm and QK-norm: what norms take in, what they hold back, and models without them.

Chapter: norms.
"""

from nanogpt2.lab.probing import looks_ahead
from nanogpt2.studies.norms.changes import over_time
from nanogpt2.studies.norms.measures import (
    fold_gains,
    incoming,
    largest_score,
    learned_gains,
    mean_share,
    rms_after,
    row_losses,
    score_growth,
    sharpest_weight,
    silences,
    time_norm,
    verdict,
)
from nanogpt2.studies.norms.pictures import (
    attention_frame,
    block_picture,
    norm_frame,
    two_lengths,
)
