"""The loop: what a step does, who moves how far, schedules, batches, and how much runs differ.

Chapter: loop.
"""

from nanogpt2.studies.loop.changes import forgotten_zero
from nanogpt2.studies.loop.measures import (
    batch_runs,
    followed,
    moved_rows,
    noise,
    patients,
    rate_rows,
    spread_rows,
    spread_runs,
    tiny_config,
    tiny_run,
)
from nanogpt2.studies.loop.pictures import (
    RECORDS,
    batch_lines,
    moment_lines,
    noise_lines,
    schedule_frame,
    schedule_rows,
    step_picture,
    valley_frame,
)
