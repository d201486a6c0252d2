"""Muon and the Polar Express: singular values of gradients, steps and weights; what goes wrong.

Chapter: muon.
"""

from nanogpt2.costs import polar_express_flops
from nanogpt2.studies.muon.changes import (
    longest_row,
    recipe_with,
    shapes_swapped,
    unguarded,
    unsafe_coefficients,
)
from nanogpt2.studies.muon.measures import (
    OUTPUTS,
    bpb_by_rank,
    directions,
    distance_moved,
    gate_norm,
    gaussian_spectrum,
    gradients,
    neuron_lengths,
    output_stable_rank,
    spectrum,
    time_updates,
    verdict,
    weight_spectra,
    who_updates_what,
)
from nanogpt2.studies.muon.pictures import (
    NEWTON_SCHULZ,
    ellipse_frame,
    equioscillation,
    flattened,
    mapped,
    precision_frame,
    race_frame,
    spectra,
)
