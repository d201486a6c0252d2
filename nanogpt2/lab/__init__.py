"""What the chapters share and no trainer needs.

Plot style and figures, figures to play with, questions that keep the reader's answer, checks for
exercises, recorded runs, numbers with badges, and small training runs that chapters share. All of
it works in a live notebook and in the built page, which has no kernel and no network.
"""

from nanogpt2.lab.claims import claim, claims, table
from nanogpt2.lab.drawing import show
from nanogpt2.lab.exercises import check, compare_values
from nanogpt2.lab.explore import explore
from nanogpt2.lab.pace import live_steps
from nanogpt2.lab.panel import panel
from nanogpt2.lab.parameters import check_parameters
from nanogpt2.lab.plots import bars, curves, heatmap, lines
from nanogpt2.lab.questions import case, predict, quiz
from nanogpt2.lab.records import record, recorded
from nanogpt2.lab.small_data import small_data
from nanogpt2.lab.small_run import (
    bits_per_byte,
    small_config,
    small_recipe,
    small_run,
    small_runs,
)
from nanogpt2.lab.variations import variations_table
from nanogpt2.reporting.figures import plotting
from nanogpt2.reporting.statistics import compare
