"""What was expected of each technique on the yardstick, written down before it was measured.

A sign is that of bits per byte with it minus without it. A size is there where one was reported.
"""

from __future__ import annotations

from dataclasses import dataclass

from nanogpt2.reported import RESIDUAL_SCALARS_BPB, X0_BETA_BPB


@dataclass(frozen=True)
class Expectation:
    """One technique's."""

    sign: str
    """-: a gain; +: a loss; 0: not distinguishable with five seeds"""
    why: str
    size: float | None = None


_FOUND = "kept by automated research at d12, which kept only what lowered the loss"

EXPECTATIONS = {
    "rope": Expectation("-", "relative order for nothing; a learned table must be learned first"),
    "rmsnorm": Expectation("0", "comparable by its paper; gains fold into the matrices"),
    "no_bias": Expectation("0", "norms make most of them superfluous"),
    "relu2": Expectation("-", "Primer's search found it (2109.08668)"),
    "untied": Expectation("-", "tables and head want other scales and rates"),
    "embedding_norm": Expectation("-", "the table can start large and be learned fast"),
    "qk_norm": Expectation("-", "higher rates hold; the yardstick's rates are tuned with it"),
    "softcap": Expectation("0", "logits stay below the cap in a run this short"),
    "best_fit": Expectation("-", "every token sees the start of its document"),
    "muon": Expectation("-", "the largest step of the ladder, by every report"),
    "polar_express": Expectation("0", "reported in the noise"),
    "normuon": Expectation("-", "reported as a very small gain"),
    "cautious": Expectation("-", "reported as solid"),
    "value_embeddings": Expectation("-", "reported as a lot"),
    "residual_scalars": Expectation(
        "-", "reported, and larger the smaller the model", RESIDUAL_SCALARS_BPB[8]
    ),
    "windows": Expectation("0", "they are there to save time"),
    "warmdown": Expectation("0", "a linear fall over the whole run is as good (2502.15938)"),
    "x0_beta": Expectation("-", "reported at d20; too small for five seeds", float(X0_BETA_BPB)),
    "softcap_20": Expectation("0", "10 to 30 reported as about equal"),
    "rope_base": Expectation("0", "rows of 256 tokens need no slower frequencies"),
    "windows_third": Expectation("0", "half a row cost nothing in short runs"),
    "windows_quarter": Expectation("0", "half a row cost nothing in short runs"),
    "qk_scale": Expectation("-", _FOUND),
    "quiet_starts": Expectation("-", _FOUND),
    "value_gate": Expectation("-", _FOUND),
    "head_rate": Expectation("+", "found at d12; the yardstick's own rate is tuned"),
    "table_betas": Expectation("+", "a memory of 200 steps, where the run has 576"),
    "scalar_decay": Expectation("0", "eight numbers"),
    "muon_beta2": Expectation("0", "details of a small gain"),
    "cosine_decay": Expectation("0", "another shape of the same decay"),
    "momentum_97": Expectation("+", "a longer memory in a shorter run"),
    "long_warmdown": Expectation("-", _FOUND),
    "starts_by_depth": Expectation("-", _FOUND),
    "smear": Expectation("-", "the previous token is most of what a small model can use"),
    "backout": Expectation("-", _FOUND),
    "momentum_end": Expectation("-", _FOUND),
    "muon_eq": Expectation("-", "taken up after the records"),
    "muon_plus": Expectation("-", "taken up after the records"),
    "swiglu": Expectation("+", "reported worse per step at d12 and d24"),
}
"""key of a rung or of a later change -> what was expected"""

DEEPER = {
    "rope": "-",
    "rmsnorm": "0",
    "qk_norm": "-",
    "muon": "-",
    "polar_express": "0",
    "normuon": "0",
    "cautious": "0",
    "value_embeddings": "-",
    "residual_scalars": "-",
    "windows": "-",
}
"""key of a rung -> sign that was expected at depth 6 of three seeds, when depth 4 was known: as
there where that was large, none where it was small; for the scalars as reported at depth 8"""
