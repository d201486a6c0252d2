"""What was tried for the records and left out, as its author's log tells it: one row an idea."""

from __future__ import annotations

from typing import NamedTuple

ENDED_BY = {
    "loss": "no less loss at equal steps",
    "clock": "slower than it was better",
    "memory": "its memory",
    "size": "gone in a larger model",
    "code": "not worth its code or its parameters",
}
"""how an idea ends -> what that means"""


class Row(NamedTuple):
    """One idea; what was not said is left empty."""

    idea: str
    part: str
    """model, optimizer, data or length"""
    depth: str
    day: str
    """in 2026, month and day"""
    ended_by: str
    gigabytes: str
    """of memory more"""
    time: str
    """of a step more"""
    said: str
    key: str = "karpathy2026log"
    """of the source"""


LISTED = (
    Row("several tokens predicted at once", "model", "12", "01-12", "clock", "+13", "",
        "47 GB instead of 34; equal or slightly worse per step, clearly worse by the clock"),
    Row("fp8 on the head alone", "model", "12", "01-13", "code", "+2", "-1%",
        "right numbers; scales found on the fly kept the compiler from its work. fp8 on all "
        "large matrices came later and stayed (run 2)"),
    Row("attention kept inside documents (varlen)", "model", "16", "01-13", "loss", "", "",
        "0.85407 bits per byte against 0.85427, which is noise; lengths that changed first made "
        "the compiler start again, 25 s a step"),
    Row("rotary positions on half of the channels", "model", "", "01-16", "loss", "", "",
        "no gain"),
    Row("rotary positions on a quarter of them", "model", "", "03-24", "loss", "", "",
        "slightly worse"),
    Row("asymmetric softcap", "model", "", "01-16", "loss", "", "", "slightly worse"),
    Row("smear", "model", "", "01-16", "loss", "", "",
        "no gain; came back in run 6, with a gate of a few channels"),
    Row("backout", "model", "", "01-16", "loss", "", "",
        "no gain; came back in run 6, with a learned share"),
    Row("skip connections across blocks", "model", "", "01-16", "loss", "+2", "",
        "slightly worse"),
    Row("gates on the attention's output", "model", "", "01-17", "loss", "+1", "", "no gain"),
    Row("smaller value embeddings: shared, of low rank, projected, in a U", "model", "", "01-17",
        "loss", "", "", "every saving failed; a table at every second layer was best"),
    Row("width of 128 a layer", "model", "", "01-17", "loss", "", "",
        "at 1e18 FLOPs worse than 64 a layer"),
    Row("heads of 64 channels", "model", "", "01-17", "loss", "", "",
        "at 1e18 FLOPs worse than heads of 128"),
    Row("one matrix for queries, keys, values and output", "model", "", "01-18", "loss", "", "",
        "no effect"),
    Row("bigram hash embeddings", "model", "12, 25", "01-28", "size", "", "",
        "at d12 ahead by steps, by FLOPs and by the clock, so they were adopted; at d25 tiny and "
        "gone by the clock, so they left a day later"),
    Row("bigrams gated, in early layers only; trigrams", "model", "", "01-28", "loss", "", "",
        "did not help"),
    Row("SwiGLU", "model", "12, 24", "02-05", "loss", "", "",
        "worse per step, per FLOP and by the clock"),
    Row("mixture of experts", "model", "18", "02-19", "clock", "", "",
        "better per step; the share of the peak fell from 46% to 35%, and by the clock it lost"),
    Row("LeakyReLU, squared", "model", "", "03-24", "clock", "", "",
        "slightly better per step, slower, worse by the clock"),
    Row("XSA: attention without its own value's direction", "model", "", "03-24", "clock", "", "",
        "slightly better per step, not worth its time"),
    Row("norms scaled down with depth", "model", "", "03-24", "loss", "", "", "no help"),
    Row("orthogonal starts", "model", "", "03-24", "loss", "", "", "no help"),
    Row("DyT in the place of norms", "model", "12", "05-05", "loss", "", "+10%",
        "every variant worse per step"),
    Row("gradient clipping", "optimizer", "12, 20", "01-08", "loss", "", "+2%",
        "all variants within noise: the norm never passed 1, so clipping at 1 never acted. The "
        "first version clipped each rank by its own norm, a mistake to learn from"),
    Row("kernels of its own for Muon's symmetric products", "optimizer", "", "01-18", "clock",
        "", "", "20% faster alone, nothing in a run: the work is dealt out over the ranks"),
    Row("tuning at small scale: 320 runs", "optimizer", "12, 16, 20", "01-22", "size", "", "",
        "settings that won 0.002 bits per byte at d12 did harm at d20; one alone kept its gain, "
        "a beta1 of 0.96 for the scalars of x0 (-0.0007; 0.98: +0.0033)"),
    Row("Hyperball, MuonH", "optimizer", "12", "01-29", "loss", "", "",
        "worse in every variant; a head held to a sphere cannot grow confident"),
    Row("AdamW at every second step only", "optimizer", "12", "02-03", "clock", "", "-2%",
        "each step worse, by the clock slightly worse"),
    Row("Muon's shape factor turned round", "optimizer", "12", "02-03", "loss", "", "",
        "slightly worse"),
    Row("a batch that grows during the run", "optimizer", "", "02-05", "code", "", "",
        "small gains, not worth the code"),
    Row("averaged weights (EMA, SWA)", "optimizer", "", "before 03-24", "loss", "", "",
        "no help; not written up at the time"),
    Row("muP", "optimizer", "", "", "loss", "", "",
        "a CORE of 0.1481 against 0.1602, in a pull request", "nanochat2026mup"),
    Row("digits in groups of 1 or 3", "data", "12", "01-13", "loss", "", "",
        "0.969 and 0.972 bits per byte with 32,768 tokens; groups of up to 2: 0.965"),
    Row("Olmo 3's mix", "data", "16", "01-15", "loss", "", "",
        "a CORE of 0.138, where FineWeb-Edu gave 0.155"),
    Row("FineWeb, unfiltered", "data", "26", "02-17", "loss", "", "",
        "a CORE of 0.2241 against 0.2602"),
    Row("a mixture of FinePDFs, DCLM and FineWeb-Edu", "data", "26", "02-17", "loss", "", "",
        "a CORE of 0.2549 against 0.2602. ClimbMix was the first to win (run 4)"),
    Row("a d22 trained for longer, for run 6", "length", "22", "", "loss", "", "",
        "worse than a d24 trained for less", "karpathy2026leaderboard"),
)  # fmt: skip
"""by part, then by day; where the log says only "no gain", the row says no more"""
