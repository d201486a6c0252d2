"""Ideas that the records left out, as reported and as measured here. Chapter: what_did_not_work."""

from nanogpt2.reporting.statistics import seeds_needed
from nanogpt2.studies.what_did_not_work.ideas import bigram_table, inside_documents
from nanogpt2.studies.what_did_not_work.measures import (
    exponent,
    note,
    shrinkage,
    time_worth,
    tried,
)
from nanogpt2.studies.what_did_not_work.pictures import (
    by_depth_picture,
    clock_frame,
    ends_table,
    expected_table,
    listed_table,
    seeds_table,
    sieve,
    tried_picture,
    tried_table,
    untuned_picture,
)
