"""From text to rows: merges, vocabularies, bytes counted, rows laid, the data of the records.

Chapter: tokens_and_rows.
"""

from nanogpt2.studies.tokens_and_rows.layouts import (
    WAYS,
    best_fit,
    share_rows,
    web_lengths,
)
from nanogpt2.studies.tokens_and_rows.merging import (
    MERGES,
    bytes_by_decoding,
    digit_rows,
    first_merges,
    torn,
    words_of,
)
from nanogpt2.studies.tokens_and_rows.pictures import (
    BUFFERS,
    REFILLS,
    buffer_frame,
    merge_frame,
    opening,
    place_figure,
    reported_against_lengths,
    rows_frame,
    vocabulary_figure,
)
from nanogpt2.studies.tokens_and_rows.tables import data_rows, text_rows
