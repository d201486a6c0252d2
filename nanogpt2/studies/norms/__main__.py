"""The yardstick with other norms: trained, or gone on with."""

from nanogpt2.errors import run_command
from nanogpt2.lab.variations import record_variations
from nanogpt2.studies.norms.changes import VARIATIONS

WHAT = "Train other norms than RMSNorm without parameters; goes on where it ended."

if __name__ == "__main__":
    run_command(lambda: record_variations("norms", WHAT, VARIATIONS))
