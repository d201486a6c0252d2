"""Record the small model with other windows."""

from __future__ import annotations

from nanogpt2.errors import run_command
from nanogpt2.lab.changes import record_command
from nanogpt2.studies.windows.changes import CHANGES, WITHIN


def main() -> None:
    """The command."""
    print(record_command("windows", CHANGES, WITHIN, what="Windows of other sizes"))


if __name__ == "__main__":
    run_command(main)
