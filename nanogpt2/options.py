"""What a speedrun is asked to do: its command line, checked and resolved before any work begins.

Chapter: speedrun. A named recipe is resolved without torch: ``--dry-run`` answers at once.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from nanogpt2.config import GPTConfig
from nanogpt2.depth import Dial
from nanogpt2.errors import UserError
from nanogpt2.fields import check_fields, check_range
from nanogpt2.files import named_path, read_json
from nanogpt2.launching import world_size
from nanogpt2.logs import KINDS, check_log
from nanogpt2.machines import Machine, processor, this_machine
from nanogpt2.planning import TOKENS_PER_SHARD, Plan, recipe_for
from nanogpt2.planning import describe as describe_plan
from nanogpt2.planning import plan as plan_run
from nanogpt2.recipes import RECIPES, Recipe, get_recipe, override, set_field

RUNS = Path("runs")
MOST_CPU_RANKS = 256
EVAL_TOKENS = 20 * 2**19
SMALLEST_VOCABULARY = 256 + 9
"""what ``nanogpt2.data.tokenizer`` needs, known here without importing it; a test compares"""


@dataclass(frozen=True)
class LoopSettings:
    """How the loop keeps watch over a run; none of it changes what the model learns.

    The names are those of ``nanogpt2.training.settings.TrainSettings``; None leaves its default.
    """

    compile: Literal["auto", "on", "off"] = "auto"
    eval_every: int | None = None
    """steps between measurements of validation; None: about ten in a run"""
    eval_tokens: int | None = None
    """of one measurement; None: a hundredth of the training's, at most 10M"""
    core_every: int = 0
    checkpoint_every: int | None = None
    """steps between checkpoints; None: about ten in a run"""
    keep_last: int = 2
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        check_range(self, "eval_every", -1)
        check_range(self, "core_every checkpoint_every max_seconds", 0)
        check_range(self, "eval_tokens keep_last", 1)


@dataclass(frozen=True)
class RunPlan:
    """Everything that is decided before a run begins."""

    recipe: Recipe
    outlook: Plan
    """what the run would take on this machine"""
    data: Path | None
    """folder of parquet shards; None: the recipe's data set"""
    out: Path
    seed: int
    loop: LoopSettings
    device: str
    precision: Literal["auto", "bf16", "fp32"]
    """of products; auto: the recipe's where the machine is good at it"""
    log: str
    core_bundle: Path | None
    core_max_per_task: int | None
    max_restarts: int
    more_data: bool
    """go on with shards that have come to ``data`` since the run began"""
    dry_run: bool

    @property
    def dial(self) -> Dial:
        """Sizes, length and rates of the run."""
        return self.outlook.dial

    @property
    def ranks(self) -> int:
        """Processes of the run: one a GPU, or as many as asked for on the processor."""
        return self.outlook.machine.devices

    @property
    def wants_core(self) -> bool:
        """Whether CORE is measured: it is asked for, or the run aims at a record."""
        asked = self.core_bundle is not None or self.loop.core_every > 0
        return asked or self.recipe.record is not None

    def identity(self) -> dict[str, Any]:
        """What makes a run the run it is: two that agree in this learn the same."""
        recipe = self.recipe.to_dict()
        for name in ("summary", "record", "device_batch_size"):
            del recipe[name]
        # one's own text may lie anywhere: its digests are compared, by nanogpt2.data.source
        data = "your own text" if self.data else self.recipe.data
        return {"recipe": recipe, "data": data, "seed": self.seed, "precision": self.precision}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m nanogpt2.speedrun",
        description="From documents to a trained model and its report. Stages whose results are on "
        "disk and whole are skipped, and an unfinished training goes on from its last checkpoint.",
    )
    add = parser.add_argument
    add(
        "--recipe",
        metavar="NAME",
        help=f"auto (what this machine can do), {', '.join(RECIPES)} (default: auto)",
    )
    add("--depth", type=int, metavar="D", help="layers; sizes and rates follow from it")
    add(
        "--data",
        type=named_path,
        metavar="DIR",
        help="own parquet shards with a `text` column",
    )
    add("--out", type=named_path, metavar="DIR", help="folder of the run (default: runs/RECIPE)")
    add("--seed", type=int, help="of the start values (default: 0)")
    add(
        "--resume",
        action="store_true",
        help="continue the run in --out with the settings it was started with",
    )
    add(
        "--more-data",
        action="store_true",
        help="go on with shards that have come to --data since the run began",
    )
    add("--dry-run", action="store_true", help="print what would be done, and do nothing")
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="assignments",
        help="any field of the recipe, its model or the loop, such as ratio=8 or muon.lr=0.03",
    )
    add("--log", default="none", metavar="KIND", help=f"{', '.join(KINDS)} (default: none)")
    add("--device", default="auto", help="auto, cuda, mps or cpu (default: auto)")
    add("--cpu-ranks", type=int, metavar="N", help="N processes on the processor, as on N GPUs")
    add(
        "--max-restarts",
        type=int,
        default=0,
        metavar="N",
        help="start lost ranks again up to N times, from the last checkpoint (default: 0)",
    )
    add("--core-bundle", type=named_path, metavar="DIR", help="measure CORE with the tasks in DIR")
    add("--core-max-per-task", type=int, metavar="N", help="examples of each task (default: all)")
    return parser


def _assignments(pairs: Sequence[str]) -> dict[str, str]:
    values = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise UserError(f"--set {pair!r} has no value; write --set name=value")
        values[name.strip()] = value.strip()
    return values


def apply_assignments(
    recipe: Recipe, loop: LoopSettings, assignments: Mapping[str, str]
) -> tuple[Recipe, LoopSettings]:
    """``--set`` on the recipe, its model and the loop; UserError for a wrong name or value."""
    own = {field.name for field in fields(LoopSettings)}
    known = own | {f.name for f in fields(Recipe)} | {f.name for f in fields(GPTConfig)} | {"steps"}
    rest = {}
    for name, text in assignments.items():
        if name in own:
            loop = set_field(loop, name, text)
        elif name.partition(".")[0] in known:
            rest["iterations" if name == "steps" else name] = text
        else:
            close = difflib.get_close_matches(name, sorted(known), 1)
            hint = f"did you mean {close[0]}?" if close else "see nanogpt2/recipes.py for them all"
            raise UserError(f"--set {name}: there is no such setting; {hint}")
    return override(recipe, rest), loop


def _recorded(
    options: argparse.Namespace, out: Path
) -> tuple[Recipe, int, Path | None, LoopSettings, Any]:
    """Recipe, seed, data, loop settings and precision of the run in ``out``, for ``--resume``.

    UserError when there is no run, or when the command line contradicts its record.
    """
    names = ("recipe", "depth", "seed")
    given = [name for name in names if getattr(options, name) is not None]
    if given:
        raise UserError(
            f"--resume takes its settings from {out}/config.json; leave out --{given[0]}, "
            "or start another run without --resume"
        )
    path = out / "config.json"
    if not path.is_file():
        raise UserError(f"{out} holds no run to resume; name its folder with --out")
    config = read_json(path, "it cannot be resumed; start another run")
    try:
        recipe, loop = Recipe.from_dict(config["recipe"]), LoopSettings(**config["settings"])
        data = Path(config["data_dir"]) if config["data_dir"] else None
        if options.data is not None:
            if data is None:
                raise UserError(f"the run in {out} learns from {config['data']}; leave out --data")
            data = options.data  # it was moved
        seed, precision = config["seed"], config["identity"]["precision"]
        if not isinstance(seed, int) or not isinstance(precision, str):
            raise TypeError
        return recipe, seed, data, loop, precision
    except (KeyError, TypeError, AttributeError):
        raise UserError(
            f"{path} was not written by this version of nanogpt2; start another run"
        ) from None


def make_plan(arguments: Sequence[str] | None = None) -> RunPlan:
    """Parse and check a command line; UserError says what is wrong with it."""
    options = _parser().parse_args(arguments)
    _check(options)
    assignments, machine = _assignments(options.assignments), _machine(options)
    seed, data, loop = options.seed or 0, options.data, LoopSettings()
    precision: Any = "auto"
    if options.resume:
        out = options.out or RUNS / recipe_for(machine).name
        recipe, seed, data, loop, precision = _recorded(options, out)
    else:
        by_machine = options.recipe in (None, "auto")
        recipe = recipe_for(machine) if by_machine else get_recipe(options.recipe)
        out = options.out or RUNS / recipe.name
    if options.depth is not None:
        recipe = replace(recipe, depth=options.depth)
    recipe, loop = apply_assignments(recipe, loop, assignments)
    if assignments.get("precision") in ("bf16", "fp32"):
        precision = assignments["precision"]  # asked for by name: not left to the machine
    if recipe.model.vocab_size < SMALLEST_VOCABULARY:
        raise UserError(
            f"a vocabulary of {recipe.model.vocab_size} is too small: 256 bytes and 9 special "
            f"tokens need {SMALLEST_VOCABULARY}"
        )
    outlook = plan_run(recipe, None, machine)
    resolved = outlook.dial
    every = max(1, resolved.iterations // 10)
    return RunPlan(
        recipe=recipe,
        outlook=outlook,
        data=data,
        out=out,
        seed=seed,
        loop=replace(
            loop,
            eval_every=every if loop.eval_every is None else loop.eval_every,
            eval_tokens=loop.eval_tokens or min(EVAL_TOKENS, max(1, resolved.tokens // 100)),
            checkpoint_every=every if loop.checkpoint_every is None else loop.checkpoint_every,
        ),
        device="cpu" if options.cpu_ranks else options.device,
        precision=precision,
        log=options.log,
        core_bundle=options.core_bundle,
        core_max_per_task=options.core_max_per_task,
        max_restarts=options.max_restarts,
        more_data=options.more_data,
        dry_run=options.dry_run,
    )


def _check(options: argparse.Namespace) -> None:
    check_log(options.log)
    if options.seed is not None and abs(options.seed) >= 2**63:
        raise UserError(f"--seed is {options.seed}; give one that fits into 64 bits")
    for name, least in (("cpu_ranks", 1), ("core_max_per_task", 1), ("max_restarts", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} is {value}; it must be at least {least}")
    if options.cpu_ranks is not None and options.cpu_ranks > MOST_CPU_RANKS:
        raise UserError(
            f"--cpu-ranks is {options.cpu_ranks}; a rehearsal has at most {MOST_CPU_RANKS}: every "
            "rank is a process with a copy of the model"
        )
    for name in ("data", "core_bundle"):
        folder = getattr(options, name)
        if folder is not None and not folder.is_dir():
            raise UserError(f"--{name.replace('_', '-')} {folder}: there is no such folder")
    if options.out is not None and options.out.exists() and not options.out.is_dir():
        raise UserError(f"--out {options.out} is a file; name a folder")


def _machine(options: argparse.Namespace) -> Machine:
    """What the run finds here; several ranks on a processor share it."""
    kind, _, index = options.device.partition(":")
    if options.cpu_ranks or (kind == "auto" and not _has_gpu()):
        machine = processor()
    else:
        machine = this_machine(kind)
    ranks = world_size() or options.cpu_ranks or (1 if index else machine.devices)
    return machine.with_devices(ranks)


def _has_gpu() -> bool:
    """Whether it is worth asking torch; without any driver a dry run need not wait for it."""
    drivers = ("/dev/nvidia0", "/dev/dxg", "/dev/kfd")
    return sys.platform != "linux" or any(Path(driver).exists() for driver in drivers)


def describe(plan: RunPlan) -> Iterator[str]:
    """The plan in lines for people: sizes, length, arithmetic, folder, processes."""
    resolved, model = plan.dial, plan.dial.model
    counts = resolved.parameters
    parts = "; ".join(
        f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items() if name != "total"
    )
    rounded = repr(float(resolved.total_flops)).replace("e+", "e")
    flops = f"{resolved.total_flops:,}" + (f" ({rounded})" if "e" in rounded else "")
    window = f"{model.window_pattern} (short {model.short_window:,})"
    rows = {
        "recipe": f"{plan.recipe.name}: {plan.recipe.summary}",
        "model": f"{model.n_layer} layers, width {model.n_embd:,}, {model.n_head} heads, "
        f"context {model.sequence_len:,}, windows {window}, vocabulary {model.vocab_size:,}",
        "parameters": f"{counts['total']:,} ({parts})",
        "batch": f"{resolved.batch_tokens:,} tokens",
        "steps": f"{resolved.iterations:,}",
        "tokens": f"{resolved.tokens:,}",
        "FLOPs": f"{flops}; {resolved.flops_per_token:,} per token",
        "rates": f"learning-rate scale {resolved.lr_scale:.6g}, "
        f"Muon's weight decay {resolved.weight_decay:.6g}",
        "precision": plan.recipe.precision if plan.precision == "auto" else plan.precision,
        "data": str(plan.data or plan.recipe.data),
        "processes": f"{plan.ranks}"
        + (", started by torch.distributed's launcher" if plan.ranks > 1 else ""),
        "folder": str(plan.out),
        "machine": plan.outlook.machine.describe(),
    }
    for name, value in rows.items():
        yield f"{name:<12}{value}"
    for name, value in describe_plan(plan.outlook):
        if name in ("fits", "memory", "disk", "time", "energy", "money", "note"):
            yield f"{name:<12}{value}"


def shards_needed(plan: RunPlan) -> int:
    """How many training shards of its downloaded data set the run reads; 0 without a download."""
    tokens = TOKENS_PER_SHARD.get(plan.recipe.data) if plan.data is None else None
    return -(-plan.dial.tokens // tokens) if tokens else 0


def record(plan: RunPlan, command: str, machine: dict[str, Any]) -> dict[str, Any]:
    """``config.json``: all that the report, ``--resume`` and a curious reader need."""
    return {
        "name": plan.recipe.name,
        "summary": plan.recipe.summary,
        "command": command,
        "recipe": plan.recipe.to_dict(),
        "dial": asdict(plan.dial),
        "settings": asdict(plan.loop),
        "data": str(plan.data or plan.recipe.data),
        "data_dir": str(plan.data.resolve()) if plan.data else None,
        "seed": plan.seed,
        "identity": plan.identity(),
        "machine": machine,
    }
