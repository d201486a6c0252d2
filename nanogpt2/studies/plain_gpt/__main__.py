"""Record other shapes of the small model."""

from nanogpt2.lab.changes import record_changes
from nanogpt2.studies.plain_gpt.changes import CHANGES

if __name__ == "__main__":
    what = "Depth against width at equal matrices, and one head in place of three"
    record_changes("plain_gpt", CHANGES, {}, what=what)
