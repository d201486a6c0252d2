"""What each technique of the run is worth, measured on one small model. Chapter: plain_gpt."""

from nanogpt2.studies.ladder.pictures import (
    deeper_picture,
    deeper_table,
    expected_table,
    machines_table,
    packing_claims,
    progress,
    seeds_table,
    sweep_table,
    worth_picture,
    worth_table,
    worths,
)
