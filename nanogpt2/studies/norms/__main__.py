"""Record the small model against one change of its norms at a time."""

from __future__ import annotations

from nanogpt2.errors import run_command
from nanogpt2.lab.changes import record_command
from nanogpt2.studies.norms.changes import CHANGES, WITHIN


def main() -> None:
    """The command."""
    what = "The book's small model and one change at a time"
    print(record_command("norms", CHANGES, WITHIN, what=what))


if __name__ == "__main__":
    run_command(main)
