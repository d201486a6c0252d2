"""The runs of the ideas that were left out: trained, or gone on with; beside the ladder's."""

from nanogpt2.errors import run_command
from nanogpt2.lab.variations import record_variations
from nanogpt2.studies.what_did_not_work.plan import IDEAS

WHAT = "Try ideas again that the records left out; goes on where it ended."

if __name__ == "__main__":
    run_command(lambda: record_variations("what_did_not_work", WHAT, IDEAS))
