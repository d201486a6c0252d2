"""Record the small model against one change of its norms at a time."""

from nanogpt2.lab.changes import record_changes
from nanogpt2.studies.norms.changes import CHANGES, WITHIN

if __name__ == "__main__":
    record_changes("norms", CHANGES, WITHIN, what="The book's small model and one change at a time")
