"""What a run is: one object from the command line, from Python or from JSON, handed down whole.

``Run`` is what is asked for; what follows from it is its ``dial``, and what it costs is a plan.
Every command that trains has the options of ``add_options``. Chapter: speedrun.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import Field

from nanogpt2.depth import Dial, dial
from nanogpt2.errors import UserError
from nanogpt2.files import named_path
from nanogpt2.recipes import RECIPES, Recipe
from nanogpt2.settings import Count, Natural, Place, Scale, flat, from_dict, override, settings

EVAL_TOKENS = 20 * 2**19
WARMUP_STEPS = 10
"""first steps, of compilation, caches and clocks, that the leaderboard does not time, nor the mean
speed after a start counts"""
PROMPTS = (
    "The state of the Union is",
    "The largest city in the country",
    "My fellow citizens,",
    "Water is",
    "In the year 1900,",
)
"""what a model continues after its training, and the first two of them during it"""
GENTLER = 0.3
"""of a recipe's rates where a run goes on from another's model: the best on the new text of 1, 0.3,
0.1 and 0.03 (``python -m benchmarks.onward``)"""
ITS_SEED, ANOTHER_MODEL = "its seed", "another model"
"""where a run's start values come from; the other model's weights file is named while it is there
(``nanogpt2.training.onward.identity_of``)"""
LENGTH = ("recipe.ratio", "recipe.iterations")
"""the settings that say how long a run is"""
PRECISIONS = ("auto", "bf16", "fp16", "fp32")
"""what products may be asked to run in by name"""
MOST_PROFILED = 100
"""steps whose every operation is kept in memory"""
LEARNING_FREE = ("summary", "record", "device_batch_size")
"""fields of a recipe that change nothing of what is learned"""


@settings
class Loop:
    """How the loop keeps watch over a run; none of it changes what the model learns."""

    attention_backend: Literal["auto", "fa3", "fa4", "fa2", "varlen", "banded", "sdpa"] = "auto"
    """what computes attention; auto: the fastest that serves (``nanogpt2.kernels.backends``)"""
    compile: Literal["auto", "on", "off"] = "auto"
    """auto: where a compiler is found and the run is long enough to earn its start"""
    recompute: Literal["off", "on"] = "off"
    """on: keep only what goes into each block, and run it again for the backward pass: less memory
    for one forward pass more, about a third more arithmetic (Chen et al., arXiv 1604.06174)"""
    eval_every: Annotated[int, Field(ge=-1, lt=2**62)] | None = None
    """steps between measurements of validation bits per byte; 0: only at the end; -1: never"""
    eval_tokens: Count | None = None
    """of one measurement, over all ranks; None: a hundredth of the training's, at most 10M"""
    core_every: Natural = 0
    """steps between CORE evaluations; 0: never"""
    core_sample: Count | None = 500
    """examples of each task in these; None: all"""
    sample_every: Natural = 0
    """steps between samples of what the model writes; 0: never"""
    checkpoint_every: Natural | None = None
    """steps between checkpoints; 0: only at the end (and when stopped)"""
    keep_last: Count = 2
    """how many checkpoints stay, beside the one with the best validation"""
    max_seconds: Scale | None = None
    """stop after so many seconds of training (evaluations left out), saved and resumable"""
    minutes: Annotated[float, Field(gt=0, lt=1e6)] | None = None
    """set the run's length once, by the speed of its first steps, so that it ends within so many
    minutes of training, measured as it goes and cooled down (see ``nanogpt2.training.length``)"""
    lengthen: bool = True
    """whether ``minutes`` may make the run longer than its recipe says"""
    profile: str | None = None
    """first and last of the steps that are profiled, such as 10:13 (1 is the run's first)"""

    def __post_init__(self) -> None:
        if self.profile is not None and not 0 < len(self.profiled) <= MOST_PROFILED:
            raise UserError(
                f"profile is {self.profile!r}; it must be the first and the last of at most "
                f"{MOST_PROFILED} steps, such as 10:13"
            )

    @property
    def profiled(self) -> range:
        """The steps that are profiled."""
        steps = re.fullmatch(r"([1-9]\d{0,9}):(\d{1,10})", self.profile or "")
        return range(int(steps[1]), int(steps[2]) + 1) if steps else range(0)

    def over(self, dial: Dial) -> Loop:
        """The loop of a run of that length: None stands for about ten times in it."""
        every = max(1, dial.iterations // 10)
        return replace(
            self,
            eval_every=every if self.eval_every is None else self.eval_every,
            eval_tokens=self.eval_tokens or min(EVAL_TOKENS, max(1, dial.tokens // 100)),
            checkpoint_every=every if self.checkpoint_every is None else self.checkpoint_every,
        )


@settings
class Run:
    """All that is asked for; raises UserError for what cannot be."""

    recipe: Recipe
    """model, data, rates and length"""
    out: Place
    """the run's folder: checkpoints/, metrics.jsonl, training.json, tokenizer/"""
    data: Place | None = None
    """folder of parquet shards; None: the recipe's data set, which lies in the run's folder"""
    tokenizer: Place | None = None
    """a saved tokenizer of the recipe's vocabulary; None: the one in the run's folder"""
    seed: Annotated[int, Field(gt=-(2**63), lt=2**63)] = 0
    """of the start values"""
    device: str = "auto"
    """auto: CUDA, else MPS, else the processor"""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """of products; auto: the recipe's where the machine is good at it, else fp32"""
    loop: Loop = Loop()
    core_bundle: Place | None = None
    """folder of CORE's tasks"""
    core_max_per_task: Count | None = None
    """examples of each of CORE's tasks after the training; None: all"""
    more_data: bool = False
    """go on with shards that have come to ``data`` since the run began"""
    resume: bool = True
    """continue from the newest whole checkpoint of ``out``, if there is one"""
    resume_from: Place | None = None
    """continue from this checkpoint"""
    log: str = "none"
    """where else the curves go"""
    init_from: Place | None = None
    """a run, a checkpoint or nanochat's, whose weights are the start values"""
    rate_scale: Scale | None = None
    """factor on every learning rate; None: 1, or ``GENTLER`` with ``init_from``"""
    sources: tuple[str, ...] = ()
    """text in other forms, or PATH:WEIGHT of a mixture, of which shards are made in the folder"""
    max_restarts: Natural = 0
    """how often lost ranks are started again"""

    BARE: ClassVar[Any] = ("recipe", "loop")
    CLOSED: ClassVar[Any] = dict.fromkeys(
        ("out", "sources", "tokenizer", "seed", "init_from", "device", "core_bundle", "log")
        + ("core_max_per_task", "more_data", "resume", "resume_from", "max_restarts"),
        "is an option of its own",
    )

    def __post_init__(self) -> None:
        if self.recipe.packing != "best_fit":
            raise UserError(
                "a run packs its rows by best fit; packing=stream is for the small runs of "
                "python -m nanogpt2.studies.ladder"
            )

    @property
    def dial(self) -> Dial:
        """Sizes, length and rates: what follows from the recipe and its depth."""
        return dial(None, self.recipe)

    @property
    def data_dir(self) -> Path:
        """Where the shards lie, or will."""
        return self.data or self.out / "data"

    @property
    def tokenizer_dir(self) -> Path:
        """Where the tokenizer lies, or will."""
        return self.tokenizer or self.out / "tokenizer"

    @property
    def wanted_precision(self) -> str:
        """Of products, as asked for by name or by the recipe."""
        return self.recipe.precision if self.precision == "auto" else self.precision

    @property
    def rates(self) -> float:
        """Factor on every learning rate."""
        if self.rate_scale is not None:
            return self.rate_scale
        return 1.0 if self.init_from is None else GENTLER

    @property
    def wants_core(self) -> bool:
        """Whether CORE is measured: it is asked for, or the run aims at a record."""
        asked = self.core_bundle is not None or self.loop.core_every > 0
        return asked or self.recipe.record is not None

    def assign(self, assignments: Mapping[str, str]) -> Run:
        """``override``; a precision that is asked for by name is not left to the machine."""
        rest, precision = dict(assignments), cast(Any, assignments.get("precision"))
        if precision == "auto":
            del rest["precision"]
        run = override(self, rest)
        return replace(run, precision=precision) if precision in PRECISIONS else run

    def identity(self) -> dict[str, Any]:
        """What makes a run the run it is, in plain values: two that agree in it learn the same.

        Its text may lie anywhere: ``nanogpt2.data.source`` compares digests. Its length by the
        clock is set once: afterwards the minutes of the same run are the same.
        """
        recipe = self.recipe.to_dict() | {"precision": self.wanted_precision}
        filled = self.loop.minutes is not None and self.loop.lengthen
        return _plain(
            {
                "recipe": {name: recipe[name] for name in recipe if name not in LEARNING_FREE},
                "data": "your own text" if self.data or self.sources else self.recipe.data,
                "seed": self.seed,
                "precision": self.precision,
                **({"minutes": self.loop.minutes} if filled else {}),
                **({"start": ANOTHER_MODEL} if self.init_from else {}),
                **({"rate_scale": self.rates} if self.rates != 1 else {}),
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return _plain(asdict(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Run:
        """The inverse of ``to_dict``; UserError where it is something else."""
        return from_dict(cls, values, "the record of the run")


def _plain(values: Any) -> Any:
    """As JSON has it: lists for tuples, names for paths."""
    return json.loads(json.dumps(values, default=str))


def difference(begun: Any, now: Mapping[str, Any]) -> str | None:
    """Where two identities part (muon.lr is 0.02 there and 0.03 here); None: it is the same run."""
    # of a run whose recipe says how long it is, and that begins at start values of its own
    own = {"minutes": None, "start": ITS_SEED, "rate_scale": 1}
    before = dict(flat(own | dict(begun))) if isinstance(begun, Mapping) else {}
    for name, value in flat(own | dict(now)):
        known = before.get(name, "not set")
        both = (known, value) if name == "start" else ()
        gone = ANOTHER_MODEL in both and ITS_SEED not in both
        if known != value and not gone:
            there, here = (str(v)[:60] for v in (known, value))
            return f"{name} is {there} there and {here} here"
    return None


def require_same_length(what: str, out: Path) -> None:
    """Raise UserError where ``what`` parts the run in ``out``, which has learned, is its length."""
    if what.startswith(LENGTH):
        raise UserError(
            f"the run in {out} has another length ({what}), and its rates fall by that "
            "length to its end: made longer it would learn on at rates that were never "
            f"scheduled; begin from its model instead (--init-from {out} --out NEW)"
        )


# The command line

NAMED = {
    "depth": ("D", "layers; sizes and rates follow from it"),
    "steps": ("N", "length of the run (default: the recipe's)"),
    "precision": ("KIND", "of products: auto, bf16, fp16, fp32 (default: auto, the recipe's)"),
    "device_batch_size": ("N", "most rows in a forward pass (default: the recipe's)"),
    "compile": ("WHEN", "auto, on, off"),
    "eval_every": ("N", "steps between measurements of validation (0: at the end, -1: never)"),
    "eval_tokens": ("N", "tokens of one measurement"),
    "core_every": ("N", "steps between measurements of CORE (0: never)"),
    "sample_every": ("N", "steps between samples of what the model writes (0: never)"),
    "checkpoint_every": ("N", "steps between checkpoints (0: only at the end)"),
    "keep_last": ("N", "checkpoints to keep, beside the best one"),
    "max_seconds": ("S", "stop, saved, after so long"),
    "profile": ("A:B", "profile steps A to B: a trace and a table in the run's folder"),
    "minutes": ("M", "set the length, by the speed of the first steps, to end within M minutes"),
}
"""settings with an option of their own: ``--eval-every 10`` is ``--set eval_every=10``"""
ABOUT_TEN = {"eval_every": "about ten in a run", "checkpoint_every": "about ten in a run"}


def add_set(parser: argparse.ArgumentParser) -> None:
    """``--set``: the one way to change any setting."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="assignments",
        help="any field of the recipe, its model or the loop, such as ratio=8 or muon.lr=0.03",
    )


def add_options(
    parser: argparse.ArgumentParser, recipe: str, loop: Loop, needs_data: bool = False
) -> None:
    """What every command that trains understands; ``recipe`` and ``loop`` are its defaults."""
    add = parser.add_argument
    names = f"one of {', '.join(RECIPES)}"
    if recipe == "auto":
        names = f"auto (what this machine can do), {', '.join(RECIPES)}"
    add("--recipe", metavar="NAME", help=f"{names} (default: {recipe})")
    place: dict[str, Any] = {"type": named_path, "metavar": "DIR", "required": needs_data}
    if needs_data:
        add("--data", **place, help="own parquet shards with a `text` column, or a mixture of them")
    else:
        add(
            "--data",
            nargs="+",
            type=lambda text: str(named_path(text)),
            metavar="SOURCE",
            help="own text: folders or files (txt, md, jsonl, csv, parquet, compressed or not); "
            "A:0.7 B:0.3 mixes by weights",
        )
    add("--out", **place, help="folder of the run" + (" (default: runs/RECIPE)" * (not needs_data)))
    add("--seed", type=int, metavar="N", help="of the start values (default: 0)")
    add(
        "--init-from",
        type=named_path,
        metavar="DIR",
        help="begin with the weights and the tokenizer of this run, checkpoint or nanochat folder, "
        f"at {GENTLER:g} times the rates (--set rate_scale=1: at the recipe's)",
    )
    add("--device", default="auto", help="auto, cuda, mps or cpu (default: auto)")
    for name, (metavar, text) in NAMED.items():
        if hasattr(loop, name):
            default = getattr(loop, name)
            default = ABOUT_TEN.get(name) if default is None else default
            text = text if default is None else f"{text} (default: {default})"
        add(f"--{name.replace('_', '-')}", metavar=metavar, help=text)
    add_set(parser)
    add("--core-bundle", type=named_path, metavar="DIR", help="measure CORE with the tasks in DIR")
    add(
        "--more-data",
        action="store_true",
        help="go on with shards that have come to --data since the run began",
    )


def assignments(options: argparse.Namespace) -> dict[str, str]:
    """What was asked for by name, by an option of its own or by ``--set``, which counts more."""
    given = {name: getattr(options, name, None) for name in NAMED}
    values = {name: text for name, text in given.items() if text is not None}
    for pair in options.assignments:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise UserError(f"--set {pair!r} has no value; write --set name=value")
        values[name.strip()] = value.strip()
    return values
