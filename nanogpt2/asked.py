"""From a command line to a run and its plan. Chapter: speedrun."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nanogpt2 import planning
from nanogpt2.depth import dial
from nanogpt2.errors import UserError
from nanogpt2.files import named_path, read_json
from nanogpt2.launching import is_rank, world_size
from nanogpt2.logs import KINDS, check_log
from nanogpt2.machines import Machine, cores, processor, this_machine
from nanogpt2.planning import Plan, recipe_for
from nanogpt2.recipes import RECIPES, get_recipe
from nanogpt2.run import Loop, Run, add_options, assignments
from nanogpt2.settings import override
from nanogpt2.training.length import require_steady_start

RUNS = Path("runs")
MOST_CPU_RANKS = 256
LAPTOP_MINUTES = 10.0
"""a slow or busy processor learns for a shorter while than the laptop's recipe says"""
SMALLEST_VOCABULARY = 256 + 9
"""what ``nanogpt2.data.tokenizer`` needs, known here without importing it; a test compares"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m nanogpt2.speedrun",
        description="From documents to a trained model and its report. Stages whose results are on "
        "disk and whole are skipped, and an unfinished training goes on from its last checkpoint.",
    )
    add_options(made, "auto", Loop())
    add = made.add_argument
    add(
        "--resume",
        action="store_true",
        help="continue the run in --out with the settings it was started with",
    )
    add(
        "--tokenizer",
        type=named_path,
        metavar="DIR",
        help="a saved tokenizer, in place of one trained on the run's text",
    )
    add("--dry-run", action="store_true", help="print what would be done, and do nothing")
    add("--yes", action="store_true", help="start the machine's recipe, however long it takes")
    add("--log", default="none", metavar="KIND", help=f"{', '.join(KINDS)} (default: none)")
    add(
        "--cpu-ranks",
        type=int,
        metavar="N",
        help="N processes on the processor (default: one a core where that pays)",
    )
    add(
        "--max-restarts",
        type=int,
        default=0,
        metavar="N",
        help="start lost ranks again up to N times, from the last checkpoint (default: 0)",
    )
    add("--core-max-per-task", type=int, metavar="N", help="examples of each task (default: all)")
    return made


def asked_for(options: argparse.Namespace) -> tuple[Run, Plan]:
    """The run of a command line, and what it would take here; UserError says what is wrong."""
    _check(options)
    machine, named, why = _machine(options), assignments(options), ""
    recipe_named = options.recipe not in (None, "auto")
    unasked = not (recipe_named or options.resume or options.init_from)
    if options.resume:
        run = _recorded(options, options.out or RUNS / recipe_for(machine)[0].name)
    else:
        if options.init_from is not None:
            from nanogpt2.training.loading import find_tokenizer_folder
            from nanogpt2.training.onward import onward_recipe

            recipe = onward_recipe(options.init_from, options.recipe if recipe_named else None)
            options.tokenizer = options.tokenizer or find_tokenizer_folder(options.init_from)
        else:
            recipe = get_recipe("laptop" if unasked else options.recipe)
        if unasked:
            recipe, why = recipe_for(machine, _seconds(named), options.yes)
        out = options.out or RUNS / (recipe.name + "-onward" * bool(options.init_from))
        data, sources = _data(options.data)
        run = Run(recipe, out, data, options.tokenizer, seed=options.seed or 0)
        run = replace(run, init_from=options.init_from, sources=sources)
    most = options.core_max_per_task
    run = replace(
        run,
        device="cpu" if machine.is_processor else options.device,
        core_bundle=options.core_bundle or run.core_bundle,
        core_max_per_task=run.core_max_per_task if most is None else most,
        more_data=options.more_data,
        log=options.log,
        max_restarts=options.max_restarts,
    ).assign(named)
    if options.init_from is not None:  # before the first stage, not in the third
        from nanogpt2.training.onward import require_same_model

        require_same_model(dial(None, recipe).model, run.dial.model, options.init_from)
    if run.recipe.model.vocab_size < SMALLEST_VOCABULARY:
        raise UserError(
            f"a vocabulary of {run.recipe.model.vocab_size} is too small: 256 bytes and 9 special "
            f"tokens need {SMALLEST_VOCABULARY}"
        )
    by_clock = options.resume or {"minutes", "loop.minutes"} & set(named)
    if not by_clock and machine.is_processor and run.recipe == get_recipe("laptop"):
        run = replace(run, loop=replace(run.loop, minutes=LAPTOP_MINUTES, lengthen=False))
    require_steady_start(run)
    plan = _planned(run, machine, named, shares=not (options.cpu_ranks or is_rank()))
    if run.data is not None or run.sources:
        plan = replace(plan, data_bytes=0)
    bounded = options.yes or run.loop.minutes or run.loop.max_seconds
    if unasked and not bounded and (ask := planning.why_ask(plan)):
        if not options.dry_run:
            raise UserError(ask)
        why = ask
    if why:
        plan = replace(plan, notes=(why, *plan.notes))
    if run.loop.minutes is None:  # else it follows from the length
        run = replace(run, loop=run.loop.over(run.dial))
    return run, plan


def _seconds(named: Mapping[str, str]) -> float | None:
    """How long the run may take, as far as the clock was named."""
    minutes = named.get("minutes") or named.get("loop.minutes")
    asked = override(Loop(), {"minutes": minutes}).minutes if minutes else None
    return 60 * asked if asked else None


def _planned(run: Run, machine: Machine, named: Mapping[str, str], shares: bool) -> Plan:
    """On a processor that ``shares`` its cores out by the rule: with as many ranks as fit."""
    recipe, usual = run.recipe, RECIPES[run.recipe.name]
    given = "device_batch_size" in named or recipe.device_batch_size != usual.device_batch_size
    how: dict[str, Any] = {
        "forced": run.precision != "auto",
        "loop": run.loop,
        "most_rows": recipe.device_batch_size if given else None,
    }
    if shares and machine.is_processor and sys.platform == "linux":
        ranks = planning.processor_ranks(run.dial, cores())
        plan = planning.plan(recipe, None, machine.with_devices(ranks), **how)
        if plan.fits or ranks == 1:
            return plan
    return planning.plan(recipe, None, machine, **how)


def _check(options: argparse.Namespace) -> None:
    check_log(options.log)
    ranks = options.cpu_ranks
    if ranks is not None and ranks < 1:
        raise UserError(f"--cpu-ranks is {ranks}; it must be at least 1")
    if ranks is not None and ranks > MOST_CPU_RANKS:
        raise UserError(
            f"--cpu-ranks is {ranks}; a rehearsal has at most {MOST_CPU_RANKS}: every "
            "rank is a process with a copy of the model"
        )
    if ranks is not None and options.device not in ("auto", "cpu"):
        raise UserError(f"--cpu-ranks runs on the processor; leave out --device {options.device}")
    if options.core_max_per_task is not None and options.core_max_per_task < 1:
        raise UserError(
            f"--core-max-per-task is {options.core_max_per_task}; it must be at least 1"
        )
    if options.core_bundle is not None and not options.core_bundle.is_dir():
        raise UserError(f"--core-bundle {options.core_bundle}: there is no such folder")
    if options.out is not None and options.out.exists() and not options.out.is_dir():
        raise UserError(f"--out {options.out} is a file; name a folder")


def _machine(options: argparse.Namespace) -> Machine:
    """What the run finds here; several ranks on a processor share it."""
    kind, _, index = options.device.partition(":")
    machine = processor() if options.cpu_ranks else this_machine(kind)
    ranks = world_size() or options.cpu_ranks or (1 if index else machine.devices)
    return machine.with_devices(ranks)


def _recorded(options: argparse.Namespace, out: Path) -> Run:
    """The run in ``out`` as its ``config.json`` has it, for ``--resume``.

    UserError when there is no run, or when the command line contradicts its record.
    """
    names = ("recipe", "depth", "seed", "init_from", "tokenizer")
    given = [name for name in names if getattr(options, name) is not None]
    if given:
        option = given[0].replace("_", "-")
        raise UserError(
            f"--resume takes its settings from {out}/config.json; leave out --{option}, "
            "or start another run without --resume"
        )
    path = out / "config.json"
    if not path.is_file():
        raise UserError(f"{out} holds no run to resume; name its folder with --out")
    config = read_json(path, "it cannot be resumed; start another run")
    try:
        known = {"recipe": config["recipe"], "loop": config["settings"], "seed": config["seed"]}
        own = ("init_from", "rate_scale", "core_max_per_task")
        known |= {name: config[name] for name in own if name in config}
        known["tokenizer"] = config.get("tokenizer_dir")
        precision, data = config["identity"]["precision"], config["data_dir"]
        bundle = Path(config["core_bundle"]) if config.get("core_bundle") else None
        sources = tuple(config.get("sources", ()))
    except (KeyError, TypeError):
        raise UserError(
            f"{path} was not written by this version of nanogpt2; start another run"
        ) from None
    run = Run.from_dict({**known, "precision": precision, "out": "."})
    if options.data is not None and (data or sources):
        data, sources = _data(options.data)  # it may have been moved
    elif options.data is not None:
        raise UserError(f"the run in {out} learns from {run.recipe.data}; leave out --data")
    return replace(run, out=out, data=data, sources=sources, core_bundle=bundle)


def _data(names: Sequence[str] | None) -> tuple[Path | None, tuple[str, ...]]:
    """What --data names: a folder of shards that are trained on as they lie, or other sources."""
    if names is None:
        return None, ()
    from nanogpt2.data.mixture import is_ready, parts_of

    first, *more = parts = parts_of(names)
    if more or first.weight is not None or not is_ready(first.path):
        return None, tuple(map(str, parts))  # which a later call finds from any folder
    return first.path, ()
