"""From GPT-2's bill of 2019 to that of 2026: what each factor of the fall is, and how sure.

Chapter: story.
"""

from nanogpt2.studies.story.bills import (
    ENDS,
    PARTS,
    UNITS,
    bills,
    energy_rows,
    factors,
    fall_rows,
    gpt2_model,
    hand_rows,
)
from nanogpt2.studies.story.pictures import fall_frame, squares, stages, task_picture
