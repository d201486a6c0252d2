"""How loss follows from size, tokens, batch and width, measured small. Chapter: scaling_laws."""

from nanogpt2.studies.scaling_laws.fits import Law, bowl, fit_law
from nanogpt2.studies.scaling_laws.measures import (
    NOT_YET,
    batch_rows,
    count_rows,
    extrapolated_rows,
    foretold,
    held_rows,
    live_runs,
    points_in,
    printed_law,
    rate_rows,
    ratio_spread,
    reported_rows,
    rows_or_none,
    shrinking,
    unfinished,
    valley_rows,
    waste_rows,
)
from nanogpt2.studies.scaling_laws.pictures import (
    batch_lines,
    grid_frames,
    growth_lines,
    map_of_runs,
    parabola,
    rate_frames,
    valley_frame,
)
from nanogpt2.studies.scaling_laws.plan import BUDGETS, WIDTHS, Plan
from nanogpt2.studies.scaling_laws.summary import COUNTS
