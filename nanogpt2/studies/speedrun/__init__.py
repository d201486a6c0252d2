"""The speedrun: rehearsals of the real command, plans, prices, the records.

Chapter: speedrun.
"""

from nanogpt2.studies.speedrun.pictures import pipeline
from nanogpt2.studies.speedrun.rehearsals import (
    metrics,
    prepared_copy,
    rehearse,
    same_weights,
    stages_said,
)
from nanogpt2.studies.speedrun.tables import (
    change_rows,
    gpt3_hours,
    leaderboard_rows,
    plan_rows,
    price_rows,
)
