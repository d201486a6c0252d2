"""CORE: what guessing gives, how sure a score is, what a corpus gives away.

Chapter: core.
"""

from nanogpt2.studies.core.measures import (
    bootstrap,
    by_label,
    certainty,
    chance_rows,
    core_bundle,
    core_of_guessing,
    error_by_formula,
    first_choices,
    item_text,
    kind_rows,
    margin_rows,
    mean_loss,
    overlap_rows,
    overlaps,
    published_counts,
    size_rows,
)
from nanogpt2.studies.core.pictures import (
    bootstrap_figure,
    centering_frame,
    seeds_frame,
    three_kinds,
)
