"""The whole run with one command: from documents to a trained model and its report.

``python -m nanogpt2.speedrun`` checks the machine, gets the data, trains a tokenizer and a model,
measures it, lets it write, and reports. A stage whose result is on disk and whole is skipped; an
unfinished training goes on from its last checkpoint. On several GPUs it starts torch.distributed's
launcher; under torchrun it is one of the ranks. Chapter: speedrun.
"""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from nanogpt2 import planning
from nanogpt2.asked import asked_for, parser
from nanogpt2.errors import UserError, run_command
from nanogpt2.files import MADE, made_here, mark, read_json, require_free_space, write_json
from nanogpt2.folder import claimed
from nanogpt2.journal import Journal, restarts
from nanogpt2.launching import backend, is_rank, launch, rank
from nanogpt2.planning import Plan
from nanogpt2.reporting.console import Screen
from nanogpt2.reporting.credits import credits
from nanogpt2.reporting.machine import describe_machine
from nanogpt2.run import PROMPTS, Run, difference, require_same_length
from nanogpt2.stages import SAMPLING, Work
from nanogpt2.stamps import Stamps
from nanogpt2.training.length import FIRST_STEPS, is_open


def record(run: Run, command: str, machine: dict[str, Any]) -> dict[str, Any]:
    """``config.json``: all that the report, ``--resume`` and a curious reader need."""
    return {
        "name": run.recipe.name,
        "summary": run.recipe.summary,
        "command": command,
        "recipe": run.recipe.to_dict(),
        "dial": asdict(run.dial),
        "settings": asdict(run.loop),
        "data": data_named(run),
        "sources": list(run.sources),
        "data_dir": str(run.data.resolve()) if run.data else None,
        "seed": run.seed,
        "init_from": run.init_from and str(run.init_from.resolve()),
        "rate_scale": run.rate_scale,
        "core_bundle": run.core_bundle and str(run.core_bundle.resolve()),
        "core_max_per_task": run.core_max_per_task,
        "tokenizer_dir": run.tokenizer and str(run.tokenizer.resolve()),
        "identity": run.identity(),
        "machine": machine,
    }


def data_named(run: Run) -> str:
    """The run's data, in a word."""
    return " ".join(run.sources) or str(run.data or run.recipe.data)


def describe(run: Run, plan: Plan) -> Iterator[str]:
    """What will be done, in lines for people: sizes, length, costs, places."""
    several = ""
    if plan.machine.devices > 1:
        several = f", started by torch.distributed's launcher, over {backend(plan.machine.device)}"
    places = {
        **({} if run.loop.minutes is None else {"length": _length(run)}),
        "precision": plan.precision,
        **({"start": f"{run.init_from}, at {run.rates:g} of its rates"} if run.init_from else {}),
        "data": data_named(run),
        "processes": f"{plan.machine.devices}{several}",
        "folder": str(run.out),
    }
    for name, value in (*planning.describe(plan), *places.items()):
        yield f"{name:<12}{value}"


def _length(run: Run) -> str:
    """How the clock will set it, or has."""
    at_most = "" if run.loop.lengthen else f"{run.dial.iterations:,} steps, or fewer "
    return (
        f"{at_most}to end within {run.loop.minutes:g} minutes; "
        f"set once, by the speed of the first {FIRST_STEPS} steps"
    )


def outline(run: Run, plan: Plan) -> Iterator[str]:
    """The stages in lines for people, with what is done already."""
    speedrun = Speedrun(run, plan, command="")
    yield "1  check the machine"
    for number, stage in enumerate(speedrun.stages(), start=2):
        done = speedrun.stamps.valid(stage.name, stage.inputs())
        yield f"{number}  {stage.title}{' (is done)' if done else ''}"


# The stages


@dataclass(frozen=True)
class Stage:
    """One step of the run."""

    name: str
    title: str
    inputs: Callable[[], Any]
    """plain values: when they change, the stage is done again"""
    work: Callable[[], list[Path] | None]
    """does it and returns the files it made; None: it was stopped half-way"""
    together: bool = False
    """all ranks do it; otherwise the first alone"""


class Speedrun:
    """The stages of one run, in order."""

    def __init__(self, run: Run, plan: Plan, command: str) -> None:
        self.asked, self.plan, self.command, self.out = run, plan, command, run.out
        self.stamps, self.journal = Stamps(run.out), Journal(run.out, rank())
        self.screen = Screen(quiet=rank() > 0)
        self.work = Work(run, plan, self.screen)

    def stages(self) -> list[Stage]:
        """All but the first, which looks at the machine anew each time."""
        run, work, made = self.asked, self.work, self.stamps.made
        bundle = run.core_bundle and run.core_bundle.resolve()  # as config.json has it
        core = [str(bundle), run.core_max_per_task]

        def tokenizer() -> Any:
            if run.tokenizer:  # which the training holds to
                return str(run.tokenizer.resolve())
            return [made("data"), run.recipe.model.vocab_size]

        def train() -> Any:
            return [made("tokenizer"), run.identity()]

        def scores() -> Any:
            return [work.trained(), core]

        def sample() -> Any:
            return [work.trained(), PROMPTS, SAMPLING]

        stages = [
            Stage("data", "get the data", work.wanted_data, work.get_data),
            Stage("tokenizer", "train the tokenizer", tokenizer, work.train_tokenizer),
            Stage("train", "train the model", train, work.train_model, together=True),
            Stage("evaluate", "evaluate bits per byte", work.trained, work.evaluate, together=True),
            Stage("core", "evaluate CORE", scores, work.evaluate_core, together=True),
            Stage("sample", "let it write", sample, work.sample),
            Stage("report", "write the report", work.report_inputs, work.report),
        ]
        return [stage for stage in stages if stage.name != "core" or run.wants_core]

    def run(self) -> int:
        """All stages; returns the exit code: 130 or 143 when a signal ended the training."""
        from nanogpt2.training.ranks import join

        with join(self.asked.device) as ranks, ExitStack() as claim:
            self.work.ranks = ranks
            self.work.plan = self.plan = planning.as_found(self.plan, self.asked, ranks)
            if ranks.is_main:
                claim.enter_context(claimed(self.out))
                self.begin()
            try:
                for stage in self.stages():
                    self.do(stage)
                    if self.work.exit_code:
                        break
            except Exception as error:
                self.journal.failed(error)
                raise
        if ranks.is_main and not self.work.exit_code:
            print(self.out / "report.html")
        return self.work.exit_code

    def do(self, stage: Stage) -> None:
        """Run one stage unless its result is on disk and whole; rank 0 decides that for all."""
        main = self.work.ranks.is_main
        done = self.work.ranks.share(lambda: self.stamps.valid(stage.name, stage.inputs()))
        if main:
            names = [known.name for known in self.stages()]
            place = names.index(stage.name) + 2, len(names) + 1  # the machine was the first
            self.screen.stage(*place, stage.title, "is done" if done else "")
        if done or not (main or stage.together):
            return
        with self.journal.stage(stage.name) if main else nullcontext():
            files = stage.work()
        if main and files is not None:
            self.stamps.write(stage.name, stage.inputs(), files)

    def begin(self) -> None:
        """The first stage: machine, folder and settings fit each other; ``config.json`` says so."""
        run, plan, stages = self.asked, self.plan, self.stages()
        self.screen.stage(1, len(stages) + 1, "check the machine")
        machine = describe_machine()
        self.screen.say(f"  {machine.get('gpus') or machine['processor']}, {machine['memory']}")
        if restarts() and (why := self.journal.last_words()):
            self.screen.say(f"  started again; the attempt before this one: {why}")
        check_same_run(run)
        valid = {stage.name: self.stamps.valid(stage.name, stage.inputs()) for stage in stages}
        self.work.check_folders({name for name, done in valid.items() if not done})
        require_free_space(self.out, self.work.bytes_to_come(), "the run")
        if not plan.fits and not plan.machine.is_processor:
            raise UserError(f"the run does not fit this machine: {plan.reasons[0]}")
        if not valid["train"]:
            self.work.check_attention()
        if made_here(self.out) != {MADE}:
            mark(self.out)
        config = record(run, self.command, machine)
        config |= {
            "credits": credits(run.recipe.data, run.sources and data_named(run) or run.data),
            "sampling": SAMPLING,
        }
        path = self.out / "config.json"
        known = read_json(path) if valid["train"] and path.is_file() else {}
        if known:  # the machine that trained is the one to report; the data may lie elsewhere now
            config = known | {name: config[name] for name in ("data", "data_dir", "sources")}
        if config != known:
            write_json(path, config)
        if valid["train"] and "text" not in config["identity"]:  # it was lost, and is made again
            self.work.note_identity()
        if not valid["train"] and not is_rank():
            plan = planning.measured(plan, run.recipe)
        for line in describe(run, plan):
            self.screen.say(f"  {line}")


def check_same_run(run: Run) -> None:
    """UserError when ``run.out`` holds a run that learned something else: it would be lost."""
    path = run.out / "config.json"
    if not path.is_file():
        return
    from nanogpt2.training.checkpoint import learned
    from nanogpt2.training.onward import identity_of

    known = read_json(path)
    begun = known.get("identity") if isinstance(known, dict) else None
    if not isinstance(begun, dict):
        raise UserError(f"{path} is damaged; delete it, and it is made again")
    if is_open(learned(run.out) or {}):
        begun = {**begun, "minutes": run.identity().get("minutes")}
    if what := difference(begun, identity_of(run)):
        if learned(run.out) is not None:
            require_same_length(what, run.out)
        raise UserError(
            f"{run.out} holds another run ({what}); name another --out, or delete that folder"
        )


def _terminated(number: int, frame: Any) -> NoReturn:
    sys.exit(128 + number)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options = parser().parse_args(arguments)
    try:
        run, plan = asked_for(options)
    except UserError:
        if rank() > 0:
            return 2  # rank 0 was told the same, and says so
        raise
    if options.dry_run:
        if rank() == 0:
            check_same_run(run)
            plan = planning.measured(plan, run.recipe)
            print(*describe(run, plan), "", *outline(run, plan), sep="\n")
        return 0
    if plan.machine.devices > 1 and not is_rank():
        return launch(plan.machine.devices, "nanogpt2.speedrun", arguments, run.max_restarts)
    if why := Journal(run.out).refusal():
        if rank() == 0:
            print(f"error: not started again: it would end as before ({why})", file=sys.stderr)
        return 2
    if is_rank() and rank() == 0:  # before they join: an optimizer would wait for all of them
        plan = planning.measured(plan, run.recipe)
    command = shlex.join(["python", "-m", "nanogpt2.speedrun", *arguments])
    return Speedrun(run, plan, command).run()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminated)  # clean up, as on Ctrl-C
    run_command(main)
