"""Record the small model with other windows."""

from nanogpt2.lab.changes import record_changes
from nanogpt2.studies.windows.changes import CHANGES, WITHIN

if __name__ == "__main__":
    record_changes("windows", CHANGES, WITHIN, what="Windows of other sizes")
