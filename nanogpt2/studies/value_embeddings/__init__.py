"""Value embeddings and residual scalars: what they cost, what they learn, models without them.

Chapter: value_embeddings.
"""

from nanogpt2.studies.value_embeddings.changes import one_token_early
from nanogpt2.studies.value_embeddings.measures import (
    equal_rates,
    first_steps,
    guessing,
    scalars_probe,
    taken_apart,
)
from nanogpt2.studies.value_embeddings.pictures import (
    CONTEXTS,
    block_path,
    compute_rows,
    distance_lines,
    gate_ranges,
    memory_rows,
    scalar_map,
    value_frame,
    weights_frame,
    word_rows,
)
