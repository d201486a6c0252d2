"""Numbers that others measured or priced, each with its unit, its source and its date.

The one place where such a number is typed: recipes, planner, studies, chapters and pages read it
from here. A constant is a float, so that it can be reckoned with; what comes out of the reckoning
is a plain float, and still no measurement of ours (the book marks it *reported*).

Chapters: story, where_the_time_goes, speedrun, core, scaling_laws.
"""

from __future__ import annotations

from typing import NamedTuple

SOURCES = {
    "karpathy2026nanochat": "nanochat, discussion 481",
    "karpathy2026leaderboard": "nanochat, LEADERBOARD.md",
    "karpathy2026log": "nanochat, LOG.md",
    "karpathy2026gpt3": "nanochat, estimate_gpt3_core.ipynb",
    "nanochat2026data": "nanochat, speedrun.sh",
    "nanochat2026bytes": "nanochat, commit 2ce972a",
    "nanochat2026seeds": "nanochat, pull request 807",
    "nanochat2026mup": "nanochat, pull request 644",
    "nanochat2026vocabulary": "nanochat, pull request 830",
    "nanochat2026bigrams": "nanochat, pull request 747",
    "nanochat2026clip": "nanochat, pull request 733",
    "nanochat2026weco": "nanochat, pull request 655",
    "nanochat2026funnel": "nanochat, pull request 669",
    "karpathy2024llmc": "llm.c, discussion 677",
    "synced2019staggering": "Synced",
    "patterson2021carbon": "Patterson et al.",
    "jouppi2023tpu": "Jouppi et al.",
    "chowdhery2022palm": "PaLM",
    "radford2019language": "GPT-2",
    "brown2020language": "Brown et al.",
    "nvidia2023h100": "NVIDIA, data sheets",
    "li2024datacomp": "DCLM",
    "morris2025how": "Morris et al.",
    "kaplan2020scaling": "Kaplan et al.",
    "hoffmann2022training": "Hoffmann et al.",
    "besiroglu2024chinchilla": "Besiroglu et al.",
}
"""key of ``book/references.bib`` -> what a badge calls it"""


class Reported(float):
    """A number with where it is from."""

    unit: str
    key: str
    """of its source in ``SOURCES``"""
    date: str
    """when it was published or measured: a year, a month or a day"""

    def __new__(cls, value: float, unit: str = "", key: str = "", date: str = "") -> Reported:
        made = super().__new__(cls, value)
        made.unit, made.key, made.date = unit, key, date
        return made

    @property
    def source(self) -> str:
        """For a badge: who said it, and when."""
        return f"{SOURCES[self.key]}, {self.date}"


# --- GPT-2 in 2019 ---------------------------------------------------------------------------
# "32 TPU v3" at $8 an hour: the price is that of a Cloud TPU v3 *device*, which has four chips.
# The book takes 32 devices, for money and for power alike, and shows the other reading beside it.
GPT2_DEVICES = Reported(32, "TPU v3", "karpathy2026nanochat", "January 2026")
GPT2_HOURS = Reported(168, "hours", "karpathy2026nanochat", "January 2026")
TPU_DEVICE_DOLLARS = Reported(8, "dollars an hour", "synced2019staggering", "27 June 2019")
TPU_DEVICE_CHIPS = Reported(4, "chips a device", "synced2019staggering", "27 June 2019")
TPU_CHIP_PEAK = Reported(123e12, "FLOP/s in bf16", "jouppi2023tpu", "June 2023")
TPU_CHIP_WATTS_LOW = Reported(245, "W", "patterson2021carbon", "April 2021")
TPU_CHIP_WATTS_HIGH = Reported(310, "W", "patterson2021carbon", "April 2021")
"""lowest and highest of the averages over four later trainings: a chip with its share of the host,
the cooling of the building left out (table 4)"""
GOPHER_MFU = Reported(0.325, "of the peak", "chowdhery2022palm", "April 2022")
"""of a later and larger model on TPU v3 chips (table 3); GPT-2's own was not told"""
WEBTEXT_BYTES = Reported(40e9, "bytes of text", "radford2019language", "February 2019")
"""GPT-2's training text, about; how often it was read was not told"""
GPT2_PARAMETERS = (117e6, 345e6, 762e6, 1542e6)
"""of the four sizes as its paper counts them (radford2019language, table 2): all four are wrong"""
GPT2_CORE = Reported(0.256525, "CORE", "karpathy2026nanochat", "January 2026")
GPT2_CORE_CORRECTED = Reported(0.2309, "CORE", "li2024datacomp", "5 September 2025")
"""the same accuracies centered by DCLM's second table of baselines"""
GPT2_ITEMS_A_TASK = Reported(1000, "items", "karpathy2026nanochat", "January 2026")
"""GPT-2's published accuracies (355M and up) are over the first of these of each shuffled task"""

# --- the waypoint, and GPT-3 -----------------------------------------------------------------
LLMC_DOLLARS = Reported(672, "dollars", "karpathy2024llmc", "July 2024")
LLMC_HOURS = Reported(24, "hours", "karpathy2024llmc", "July 2024")
LLMC_DOLLARS_PER_HOUR = Reported(28, "dollars an hour", "karpathy2024llmc", "July 2024")
LLMC_STEPS = Reported(32_000, "steps", "karpathy2024llmc", "July 2024")
LLMC_BATCH = Reported(2**20, "tokens a step", "karpathy2024llmc", "July 2024")
LLMC_PASSED_AT = Reported(25_000, "steps", "karpathy2024llmc", "July 2024")
"""about when it had GPT-2's HellaSwag, by which it was judged; nobody asked it CORE"""
GPT3_PARAMETERS = Reported(175e9, "parameters", "brown2020language", "May 2020")
GPT3_TOKENS = Reported(300e9, "tokens", "brown2020language", "May 2020")
GPT3_CORE = Reported(0.427, "CORE", "karpathy2026gpt3", "January 2026")
"""an estimate, from six tasks that both papers have in common; GPT-3 was never asked CORE"""

# --- run 1 -----------------------------------------------------------------------------------
RUN1_SECONDS = Reported(10_949.46713, "seconds", "karpathy2026leaderboard", "29 January 2026")
RUN1_CORE = Reported(0.25851, "CORE", "karpathy2026leaderboard", "29 January 2026")
RUN1_FLOPS = Reported(4.330784131228946e19, "FLOPs", "karpathy2026leaderboard", "29 January 2026")
NODE_DOLLARS_PER_HOUR = Reported(24, "dollars an hour", "karpathy2026nanochat", "January 2026")
"""8xH100, as the announcement counts it"""
RATIO_OPTIMAL = Reported(10.5, "tokens a parameter", "karpathy2026log", "27 January 2026")
"""compute-optimal, by matrices and head; fitted with bigram embeddings on, which left again"""
RATIO_OF_ALL_BEFORE = Reported(8, "tokens a parameter", "karpathy2026log", "17 January 2026")
RATIO_OF_ALL_AFTER = Reported(4, "tokens a parameter", "karpathy2026log", "17 January 2026")
"""best ratio by *all* parameters, before and after value embeddings came"""
BPB_TOO_LOW = Reported(0.0005, "of the value", "nanochat2026bytes", "3 July 2026")
"""bits per byte of these runs read low by about this share: a slip in counting, mended later"""

# --- scaling -----------------------------------------------------------------------------------
CHINCHILLA_PARAMETERS = Reported(70e9, "parameters", "hoffmann2022training", "March 2022")
CHINCHILLA_TOKENS = Reported(1.4e12, "tokens", "hoffmann2022training", "March 2022")
LAWS = {
    "hoffmann2022training": (1.69, 406.4, 0.34, 410.7, 0.28),
    "besiroglu2024chinchilla": (1.8172, 482.01, 0.3478, 2085.43, 0.3658),
}
"""source -> E, A, alpha, B, beta of L(N, D) in nats a token, N of all parameters: as printed, and
fitted again to the runs of its figure (April 2024), since the printed numbers were found wrong"""


class Growth(NamedTuple):
    """Best N ~ C^n and best D ~ C^d."""

    how: str
    counts: str
    """what N is the number of"""
    n: float
    d: float
    key: str
    date: str


GROWTHS = (
    Growth("curves", "matrices alone", 0.73, 0.27, "kaplan2020scaling", "January 2020"),
    Growth("envelope", "all parameters", 0.50, 0.50, "hoffmann2022training", "March 2022"),
    Growth("parabolas", "all parameters", 0.49, 0.51, "hoffmann2022training", "March 2022"),
    Growth("law", "all parameters", 0.46, 0.54, "hoffmann2022training", "March 2022"),
    Growth("law", "all parameters", 0.513, 0.487, "besiroglu2024chinchilla", "April 2024"),
    Growth("parabolas", "matrices and head", 0.54, 0.49, "karpathy2026log", "27 January 2026"),
)


class Valley(NamedTuple):
    """Lowest point of an iso-FLOP parabola of run 1's model."""

    ratio: float
    """tokens for each parameter of matrices and head"""
    bpb: float


VALLEYS = {
    1e18: Valley(11.2, 0.8972),
    2.15e18: Valley(10.7, 0.8616),
    4.64e18: Valley(10.8, 0.8293),
    1e19: Valley(10.3, 0.7999),
}
"""FLOPs -> what was found (karpathy2026log, 27 January 2026; bigram embeddings on)"""
VALLEY_RATIOS = {"all parameters": (3.0, 4.0), "matrices alone": (17.2, 8.5)}
"""the same by other counts of N: tokens a parameter at the least and at the most FLOPs"""
TUNED_BPB = Reported(-0.002, "bits per byte", "karpathy2026log", "22 January 2026")
"""what 320 runs of tuning won at depth 12; at depth 20 it was a loss"""
X0_BETA_98_BPB = Reported(0.0033, "bits per byte", "karpathy2026log", "22 January 2026")
"""at depth 20: a first beta of x0's scalars only a little higher than the one that won"""

# --- machines --------------------------------------------------------------------------------
H100_PEAK = Reported(989e12, "FLOP/s in bf16", "nvidia2023h100", "2023")
H100_BANDWIDTH = Reported(3.35e12, "bytes/s of memory", "nvidia2023h100", "2023")
H100_NVLINK = Reported(900e9, "bytes/s to other GPUs, both ways", "nvidia2023h100", "2023")
H100_WATTS = Reported(700, "W", "nvidia2023h100", "2023")
DGX_H100_WATTS = Reported(10_200, "W", "nvidia2023h100", "2023")
"""the most that a whole DGX H100 draws"""

# --- speed -----------------------------------------------------------------------------------
FP8_BEFORE = Reported(630e3, "tokens/s in bf16 at depth 26", "karpathy2026log", "2 February 2026")
FP8_AFTER = Reported(740e3, "tokens/s in fp8 at depth 26", "karpathy2026log", "2 February 2026")
FP8_NET = Reported(0.05, "of the time, at equal score", "karpathy2026log", "2 February 2026")
FP8_BYTES = Reported(9e9, "bytes less in fp8", "karpathy2026log", "2 February 2026")
RECOMPILING = Reported(25, "seconds a step", "karpathy2026log", "13 January 2026")
"""when documents' lengths, new at every step, first made the compiler start again"""

MEMORIZED_BITS = Reported(3.6, "bits a parameter", "morris2025how", "May 2025")
"""what transformers hold of random strings, about"""

# --- noise -----------------------------------------------------------------------------------
SEEDS = Reported(20, "runs", "nanochat2026seeds", "2026")
SEEDS_CORE = Reported(0.2389, "CORE", "nanochat2026seeds", "2026")
SEEDS_CORE_SD = Reported(0.0062, "CORE", "nanochat2026seeds", "2026")
SEEDS_BPB = Reported(0.7373, "bits per byte", "nanochat2026seeds", "2026")
SEEDS_BPB_SD = Reported(0.00023, "bits per byte", "nanochat2026seeds", "2026")
"""one configuration, later than run 1's, run with seeds alone differing: means and deviations"""
RUN4_CORES = (0.25373, 0.2584, 0.25489, 0.2568, 0.25732, 0.26765, 0.25119)
"""the seven runs whose mean is record 4 (leaderboard, 4 March 2026)"""
MUP_CORE = Reported(0.1481, "CORE", "nanochat2026mup", "2026")
MUP_BASELINE_CORE = Reported(0.1602, "CORE", "nanochat2026mup", "2026")

# --- techniques ------------------------------------------------------------------------------
RESIDUAL_SCALARS_BPB = {8: -0.0103, 12: -0.0077, 16: -0.0057, 20: -0.0039}
"""depth -> what they did to validation bits per byte (karpathy2026log, 11 January 2026)"""
X0_BETA_BPB = Reported(-0.0007, "bits per byte", "karpathy2026log", "22 January 2026")
"""what a first beta of 0.96 for x0's scalars did at depth 20"""


class Effect(NamedTuple):
    """What was reported of a change, by size of the model."""

    sign: str
    """-: lower loss; +: higher; 0: no difference; nothing: not told"""
    said: str


_BY_DEPTH = ", ".join(f"d{depth} {value:+.4f}" for depth, value in RESIDUAL_SCALARS_BPB.items())
EFFECTS = {
    "polar_express": Effect("0", "in the noise"),
    "normuon": Effect("-", "a very small gain"),
    "cautious": Effect("-", "a solid gain, d8 to d20"),
    "value_embeddings": Effect("-", "a lot, on every axis"),
    "residual_scalars": Effect("-", _BY_DEPTH),
    "windows": Effect("", "works well; no figure"),
    "best_fit": Effect("", "losses before and after not comparable"),
    "x0_beta": Effect("-", f"d20 {X0_BETA_BPB:+.4f}"),
    "softcap_20": Effect("0", "d24: 10 to 30 about equal"),
    "smear": Effect("0", "no gain in January; in run 6 in another form"),
    "backout": Effect("0", "no gain in January; in run 6 in another form"),
    "swiglu": Effect("+", "d12, d24: worse per step"),
}
"""by the keys of ``nanogpt2.rungs`` (karpathy2026log, January to March 2026)"""

# --- data ------------------------------------------------------------------------------------
SHARD_CHARACTERS = Reported(250e6, "characters a shard", "nanochat2026data", "January 2026")
SHARD_BYTES = Reported(100e6, "bytes a shard", "nanochat2026data", "January 2026")
CHARACTERS_PER_TOKEN = Reported(4.8, "characters a token", "nanochat2026data", "January 2026")
CROPPED = Reported(0.346, "of the tokens", "karpathy2026log", "13 January 2026")
"""cropped away by best-fit packing at rows of 2,048"""
CROPPED_GREEDY = Reported(0.394, "of the tokens", "karpathy2026log", "13 January 2026")
"""by rows filled in the order of the documents"""
CROPPED_FLOOR = Reported(0.229, "of the tokens", "karpathy2026log", "13 January 2026")
"""that stand behind the first 2,049 of their document, so that no packing could keep them"""
DIGITS_1_BPB = Reported(0.969, "bits per byte", "karpathy2026log", "13 January 2026")
DIGITS_2_BPB = Reported(0.965, "bits per byte", "karpathy2026log", "13 January 2026")
DIGITS_3_BPB = Reported(0.972, "bits per byte", "karpathy2026log", "13 January 2026")
"""of depth 12 with 32,768 tokens and digits in groups of at most so many; one run each"""
TORN_TOKENS = Reported(193, "tokens", "nanochat2026bytes", "3 July 2026")
"""of nanochat's vocabulary, that are no whole characters, and were counted with too many bytes"""
FINEWEB_CORE = Reported(0.2241, "CORE", "karpathy2026log", "17 February 2026")
FINEPDFS_CORE = Reported(0.2549, "CORE", "karpathy2026log", "17 February 2026")
"""run 3's model on other texts: FineWeb; a mixture of FinePDFs, DCLM and FineWeb-Edu"""
CLIMBMIX_SHARDS_OF = Reported(6542, "shards", "karpathy2026log", "4 March 2026")
FINEWEB_SHARDS_OF = Reported(1822, "shards", "nanochat2026data", "January 2026")
"""training shards that each data set has"""
CLIMBMIX_SHARDS = Reported(150, "shards", "karpathy2026log", "4 March 2026")
"""read by run 4, about"""


class Row(NamedTuple):
    """A line of the leaderboard: 8xH100, training time alone."""

    hours: float
    val_bpb: float
    core: float
    date: str
    commit: str
    runs: int
    """of which the figures are the mean"""


LEADERBOARD = {
    "run1": Row(3.04, 0.74833, 0.2585, "2026-01-29", "348fbb3", 1),
    "run2": Row(2.91, 0.74504, 0.2578, "2026-02-02", "a67eba3", 1),
    "run3": Row(2.76, 0.74645, 0.2602, "2026-02-05", "2c062aa", 1),
    "run4": Row(2.02, 0.71854, 0.2571, "2026-03-04", "324e69c", 7),
    "run5": Row(1.80, 0.71808, 0.2690, "2026-03-09", "6ed7d1d", 5),
    "run6": Row(1.65, 0.71800, 0.2626, "2026-03-14", "a825e63", 5),
}
"""the records (karpathy2026leaderboard)"""


class Faster(NamedTuple):
    """A quicker way past GPT-2's score that was not merged: 8xH100, training time alone."""

    minutes: float
    val_bpb: float
    cores: tuple[float, ...]
    """the mean, or the lowest and the highest of its runs"""
    runs: int | None
    """None where it was not told"""
    changed: str
    date: str


BEYOND = {
    "nanochat2026vocabulary": Faster(
        81.835, 0.718786, (0.261814,), 6,
        "d22, ratio 9.4, vocabulary of 49,152, fused loss, gains on some norms, 32 rows a pass",
        "15 August 2026",
    ),
    "nanochat2026bigrams": Faster(
        86.9767, 0.722682, (0.260267,), 3,
        "d22, MuonEq and Muon+, hashed bigram embeddings, a compiler that searches longer",
        "7 May 2026",
    ),
    "nanochat2026clip": Faster(
        88.2, 0.7242, (0.2617, 0.2665), 3,
        "d22, ratio 11.05, warm-down over 0.85 of the run to a rate of 0, QK-clip",
        "27 April 2026",
    ),
    "nanochat2026seeds": Faster(
        94.6, 0.719, (0.2557, 0.2689), 6, "embedding and first block half as wide", "2026"
    ),
    "nanochat2026weco": Faster(
        94.6, 0.72205, (0.2591,), 3, "no smear, fewer value embeddings, narrower windows",
        "18 March 2026",
    ),
    "nanochat2026funnel": Faster(
        96.2, 0.7177, (0.2613,), None, "windows that narrow over the depth", "April 2026"
    ),
}  # fmt: skip
"""key of its source -> what was reported; runs 4 to 6 have their validation text"""


class Again(NamedTuple):
    """Tried again by a maintainer at depth 14 on an A100: (before the change, with it)."""

    core: tuple[float, float]
    minutes: tuple[float, float]
    date: str


AGAIN = {
    "nanochat2026weco": Again((0.159, 0.150), (203, 195), "20 March 2026"),
    "nanochat2026bigrams": Again((0.1574, 0.1507), (203, 210), "2 July 2026"),
}
"""of the two that were; a run each"""


def constants() -> dict[str, Reported]:
    """Every constant of this file by its name."""
    return {name: value for name, value in globals().items() if isinstance(value, Reported)}


def run1_dollars() -> float:
    """What the training of run 1 cost, at the announcement's price."""
    return NODE_DOLLARS_PER_HOUR * RUN1_SECONDS / 3600
