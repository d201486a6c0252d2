"""The failure clinic: trainings broken by one line, or by none, and what can be asked of them.

Chapter: failure_clinic.
"""

from nanogpt2.studies.failure_clinic.cases import admit
from nanogpt2.studies.failure_clinic.measures import MENU
from nanogpt2.studies.failure_clinic.pictures import (
    riddle,
    sight,
    signature_matrix,
    summary,
    ward,
)
from nanogpt2.studies.failure_clinic.signs import distance, healthy_spread, signatures
