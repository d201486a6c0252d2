"""The yardstick with other windows: trained, or gone on with."""

from nanogpt2.errors import run_command
from nanogpt2.lab.variations import record_variations
from nanogpt2.studies.windows.changes import VARIATIONS

WHAT = "Train the yardstick with other windows; goes on where it ended."

if __name__ == "__main__":
    run_command(lambda: record_variations("windows", WHAT, VARIATIONS))
