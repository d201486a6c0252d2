"""Rotary positions: clocks that turn, the base, and reading further than trained.

Chapter: rotary_positions.
"""

from nanogpt2.studies.rotary_positions.changes import (
    keys_unturned,
    queries_late,
    rotate_neighbours,
    wrong_pairs,
)
from nanogpt2.studies.rotary_positions.measures import (
    bpb_by_position,
    score_errors,
    time_rotation,
    verdict,
)
from nanogpt2.studies.rotary_positions.pictures import (
    likeness_frame,
    phase_clock,
    turning_row,
    unfinished_turns,
)
