"""ZeRO-2: collectives on real ranks, memory and bytes by formula, a step in its phases.

Chapter: zero2.
"""

from nanogpt2.studies.zero2.changes import summed_gradients
from nanogpt2.studies.zero2.pictures import (
    collective_frame,
    memory_frame,
    phases_picture,
    ring_frame,
    shared_step,
    timeline,
)
from nanogpt2.studies.zero2.ranks import root_cause, run_ranks
from nanogpt2.studies.zero2.tables import bandwidth_rows, stages_memory, tour_rows, traffic_rows
