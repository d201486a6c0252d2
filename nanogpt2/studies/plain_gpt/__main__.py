"""Other shapes of the yardstick: trained, or gone on with."""

from nanogpt2.errors import run_command
from nanogpt2.lab.variations import record_variations
from nanogpt2.studies.plain_gpt.changes import VARIATIONS

WHAT = "Train other shapes of the yardstick; goes on where it ended."

if __name__ == "__main__":
    run_command(lambda: record_variations("plain_gpt", WHAT, VARIATIONS))
