"""Record other shapes and other start values of the small model."""

from nanogpt2.lab.changes import record_changes
from nanogpt2.studies.plain_gpt.changes import CHANGES, WITHIN

if __name__ == "__main__":
    what = "Depth against width at equal matrices, head sizes, starts of the output matrices"
    record_changes("plain_gpt", CHANGES, WITHIN, what=what)
