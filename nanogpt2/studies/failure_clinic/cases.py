"""The cases: what one sees, who is suspected, and the one line that did it, if one did."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field

from nanogpt2.lab.seams import Flip
from nanogpt2.lab.small_run import small_config
from nanogpt2.studies.failure_clinic.measures import examined, written
from nanogpt2.studies.failure_clinic.runs import Setting, Training, train

CAUSES = {
    "shift": "targets are shifted by one the wrong way",
    "leak": "attention sees one token of the future",
    "bos": "the rows have lost their <|bos|>",
    "untied": "head and table are no longer tied",
    "rate": "the rates belong to another batch",
    "ranks": "gradients are summed over the ranks, not averaged",
    "schedule": "the schedule was made for another length",
    "frozen": "some matrices are frozen",
    "mask": "a mask lets nothing far through",
    "twice": "the same rows are read again and again",
    "state": "the optimizer's state was lost",
    "well": "nothing is wrong: this is the luck of a seed",
}


@dataclass(frozen=True)
class Case:
    """A broken training as the clinic shows it."""

    key: str
    """of ``CAUSES``"""
    suspects: tuple[str, ...]
    flip: Flip | None
    sight: tuple[str, ...]
    """what one sees first: of ``pictures.SIGHTS``"""
    tells: tuple[str, ...]
    """the measurements of ``MENU`` that settle it, the best witness first"""
    why: str
    setting: Setting = field(default_factory=Setting)
    healthy: Setting = field(default_factory=Setting)
    """what it is held against"""
    times: int = 1
    """how many times as long as the others it must be for its symptom to show"""
    luck: int = 0
    """its seed, counted from its twin's"""


SEEDS = 3
"""healthy runs that say what is luck"""
CALL = "](q_BTHD, k_BSKD, v_BSKD, window)"
TIED = Setting(small_config(2, tied_head=True, wte_std=0.02), resumed=True)
TWO = Setting(ranks=2)
CASES = (
    Case(
        "twice",
        ("rate", "twice", "leak", "frozen", "well"),
        Flip("nanogpt2.lab.small_data.SmallData.batch", "(seed, step)", "(seed, step % 10)"),
        ("loss",),
        ("read",),
        "The model learns its few rows by heart. On text that is always new the training loss is "
        "itself a held-out loss, so the two lines must lie on each other; where they part, look "
        "for rows that were there before.",
    ),
    Case(
        "schedule",
        ("rate", "untied", "ranks", "schedule", "twice"),
        Flip(
            "nanogpt2.training.fit.apply_schedules",
            "learning_rate(recipe, step, total)",
            "learning_rate(recipe, step, 2 * total // 3)",
        ),
        ("loss", "norm"),
        ("last",),
        "The run was made longer and the schedule was not told. Its straight line down goes on "
        "through zero, and a rate below zero climbs the hill it should descend. The turn comes "
        "soon after the old length has ended. The rate half way is too low as well, and by "
        "itself could pass for another batch's; but that would be off from the first step on.",
    ),
    Case(
        "leak",
        ("shift", "leak", "twice", "mask", "well"),
        Flip(
            "nanogpt2.model.attention.attention", CALL, CALL.replace("_BSKD", "_BSKD.roll(-1, 1)")
        ),
        ("loss", "sample"),
        ("future", "decoded"),
        "Every query sees keys that stand one place too early: the last of them is the very "
        "token it must predict. Held-out text does not help, for it leaks there too. Text "
        "written token by token has no future to look at, and falls apart.",
        times=2,
    ),
    Case(
        "untied",
        ("schedule", "untied", "state", "twice", "rate"),
        Flip(
            "nanogpt2.studies.failure_clinic.runs.resumed",
            "GPT(config)",
            "GPT(replace(config, tied_head=False))",
        ),
        ("loss", "norm"),
        ("parameters",),
        "The model of this run has one table for embedding and head. The model it was loaded "
        "into has two, and `strict=False` said nothing about the one that was missing: the head "
        "began anew, and all tokens were equally likely once more. A lost state of the optimizer "
        "could not do that: the first loss after a resume is taken before any update.",
        TIED,
        TIED,
    ),
    Case(
        "ranks",
        ("ranks", "rate", "schedule", "twice", "well"),
        Flip("nanogpt2.optim.sharded.Stack.update", ".div_(self.comm.world_size)", ""),
        ("log",),
        ("norm",),
        "The sum over two ranks is twice the mean. AdamW and Muon divide the length of a gradient "
        "out again, so that the loss does not tell: only the norm does, and whatever is built upon "
        "it, such as clipping. Only the first step compares equal weights, and there the norm is "
        "twice its twin's. Later the two drift apart, neither for better nor for worse, since "
        "AdamW adds an epsilon to what it divides by, and in the first steps many gradients are "
        "smaller than that. With a far smaller epsilon they stay together.",
        TWO,
        TWO,
    ),
    Case(
        "shift",
        ("leak", "shift", "twice", "bos", "well"),
        Flip(
            "nanogpt2.lab.small_data.rows_at",
            "rows[:, :-1].contiguous(), rows[:, 1:].contiguous()",
            "rows[:, 1:].contiguous(), rows[:, :-1].contiguous()",
        ),
        ("loss",),
        ("follows", "echo"),
        "The model is asked for the token that came before, which it can see: all there is to "
        "learn is to look one place back. Nothing leaks from the future, and nothing about the "
        "language is learned. What it writes goes round in circles of two.",
        times=2,
    ),
    Case(
        "frozen",
        ("frozen", "mask", "rate", "bos", "well"),
        Flip(
            "nanogpt2.optim.parameter_groups",
            "muon[tuple(parameter.shape)].append((name, parameter))",
            "muon[tuple(parameter.shape)] = [(name, parameter)]",
        ),
        ("loss", "seeds"),
        ("unmoved", "parameters"),
        "Matrices are collected by shape, and each one took the place of the last: of every "
        "shape only the last matrix is trained. In a short run the tables and the head do most "
        "of the work, and the loss hides it well.",
    ),
    Case(
        "rate",
        ("frozen", "shift", "rate", "schedule", "ranks"),
        Flip(
            "nanogpt2.studies.failure_clinic.runs.rate_factor",
            "math.sqrt(rows / ROWS)",
            "math.sqrt(256 / ROWS)",
        ),
        ("loss", "norm"),
        ("half",),
        "The batch was made small, and the rates stayed those of 256 rows. It is rough from the "
        "first step and recovers as the rate comes down, which makes it easy to overlook.",
        Setting(rows=2),
        Setting(rows=2),
    ),
    Case(
        "well",
        ("rate", "well", "frozen", "mask", "bos"),
        None,
        ("loss", "seeds"),
        (),
        "No line was changed. With another seed come other weights and other rows, and no two "
        "losses are the same. No measurement names luck: it is what is left when the question of "
        "every other suspect is answered as in health, and the loss is near those of more seeds.",
        luck=SEEDS,
    ),
    Case(
        "bos",
        ("bos", "untied", "leak", "mask", "well"),
        Flip("nanogpt2.data.texts.packed_rows", "prepend_bos=True", "prepend_bos=False"),
        ("loss", "log"),
        ("bos",),
        "The tokenizer was called without the mark that begins a document, so its row of the "
        "table was never trained. Yet every prompt begins with it. On held-out text the mark and "
        "the word after it cost far too much and every other token what it should, and the mean "
        "hides the few. In training the mark never comes: there the losses differ mostly by the "
        "rows, which are packed by length, and every document is one token shorter.",
        Setting(packed=True),
        Setting(packed=True),
    ),
    Case(
        "mask",
        ("well", "leak", "mask", "bos", "frozen"),
        Flip("nanogpt2.model.attention.attention", CALL, CALL.replace("window)", "window // 128)")),
        ("loss", "seeds"),
        ("reach",),
        "The windows of 64 and 128 tokens were taken for blocks of 128, and became 0 and 1: the "
        "first layer sees its own token alone, the second also the one before. A model so young "
        "lives off its nearest neighbours, and has less to sort out without the others. What it "
        "gives up shows much later.",
    ),
)


@dataclass
class Patient:
    """A case with its runs and what was found."""

    number: int
    case: Case
    training: Training
    healthy: Training
    here: dict[str, float]
    """every measurement of the broken training"""
    well: dict[str, float]
    """the same of the healthy one"""
    sample: str
    healthy_sample: str


def admit(number: int, steps: int, seed: int) -> Patient:
    """Train case ``number`` (1 is the first) with its line flipped, and without; examine both.

    The broken one is examined by the broken code, as it would be.
    """
    case = CASES[number - 1]
    steps *= case.times
    training = train(case.setting, steps, seed + case.luck, case.flip)
    with case.flip() if case.flip else nullcontext():
        here, sample = examined(training), written(training)
    healthy = train(case.healthy, steps, seed)
    well, healthy_sample = examined(healthy), written(healthy)
    return Patient(number, case, training, healthy, here, well, sample, healthy_sample)
