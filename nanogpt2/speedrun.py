"""The whole run with one command: from documents to a trained model and its report.

``python -m nanogpt2.speedrun`` checks the machine, gets the data, trains a tokenizer and a model,
measures it, lets it write, and reports. A stage whose result is on disk and whole is skipped; an
unfinished training goes on from its last checkpoint. On several GPUs it starts torch.distributed's
launcher; under torchrun it is one of the ranks. Chapter: speedrun.
"""

from __future__ import annotations

import json
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from nanogpt2.errors import UserError, run_command
from nanogpt2.files import MADE, made_here, mark, read_json, require_free_space, write_json
from nanogpt2.folder import claimed
from nanogpt2.launching import is_rank, launch, rank
from nanogpt2.options import RunPlan, describe, make_plan, record
from nanogpt2.reporting.console import Screen
from nanogpt2.reporting.credits import credits
from nanogpt2.reporting.machine import describe_machine
from nanogpt2.reporting.report import flat
from nanogpt2.stages import PROMPTS, SAMPLING, Work
from nanogpt2.stamps import Stamps


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

    def __init__(self, plan: RunPlan, command: str) -> None:
        self.plan, self.command, self.out = plan, command, plan.out
        self.stamps = Stamps(plan.out)
        self.screen = Screen(quiet=rank() > 0)
        self.work = Work(plan, self.screen)

    def stages(self) -> list[Stage]:
        """All but the first, which looks at the machine anew each time."""
        plan, work, made = self.plan, self.work, self.stamps.made
        tokenizer = plan.recipe.model.vocab_size
        core = [str(plan.core_bundle), plan.core_max_per_task]
        stages = [
            Stage("data", "get the data", work.wanted_data, work.get_data),
            Stage(
                "tokenizer",
                "train the tokenizer",
                lambda: [made("data"), tokenizer],
                work.train_tokenizer,
            ),
            Stage(
                "train",
                "train the model",
                lambda: [made("tokenizer"), plan.identity()],
                work.train_model,
                together=True,
            ),
            Stage(
                "evaluate",
                "evaluate bits per byte",
                work.trained,
                work.evaluate,
                together=True,
            ),
            Stage(
                "core",
                "evaluate CORE",
                lambda: [work.trained(), core],
                work.evaluate_core,
                together=True,
            ),
            Stage(
                "sample",
                "let it write",
                lambda: [work.trained(), PROMPTS, SAMPLING],
                work.sample,
            ),
            Stage("report", "write the report", work.report_inputs, work.report),
        ]
        return [stage for stage in stages if stage.name != "core" or plan.wants_core]

    def run(self) -> int:
        """All stages; returns the exit code: 130 or 143 when a signal ended the training."""
        from nanogpt2.training.ranks import join

        with ExitStack() as claim, join(self.plan.device) as ranks:
            self.work.ranks = ranks
            if ranks.is_main:
                claim.enter_context(claimed(self.out))
                self.begin()
            for stage in self.stages():
                self.do(stage)
                if self.work.exit_code:
                    break
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
        files = stage.work()
        if main and files is not None:
            self.stamps.write(stage.name, stage.inputs(), files)

    def begin(self) -> None:
        """The first stage: machine, folder and settings fit each other; ``config.json`` says so."""
        plan, stages = self.plan, self.stages()
        self.screen.stage(1, len(stages) + 1, "check the machine")
        machine = describe_machine()
        self.screen.say(f"  {machine.get('gpus') or machine['processor']}, {machine['memory']}")
        check_same_run(self.out, plan.identity())
        valid = {stage.name: self.stamps.valid(stage.name, stage.inputs()) for stage in stages}
        self.work.check_folders({name for name, done in valid.items() if not done})
        require_free_space(self.out, plan.outlook.disk_bytes, "the run")
        if not plan.outlook.fits and not plan.outlook.machine.is_processor:
            raise UserError(f"the run does not fit this machine: {plan.outlook.reasons[0]}")
        if made_here(self.out) != {MADE}:
            mark(self.out)
        config = record(plan, self.command, machine)
        config |= {"credits": credits(plan.recipe.data, plan.data), "sampling": SAMPLING}
        path = self.out / "config.json"
        known = read_json(path) if valid["train"] else {}
        if known:  # the machine that trained is the one to report; the data may lie elsewhere now
            config = known | {name: config[name] for name in ("data", "data_dir")}
        if config != known:
            write_json(path, config)
        for line in describe(plan):
            self.screen.say(f"  {line}")


def check_same_run(out: Path, identity: dict[str, Any]) -> None:
    """UserError when ``out`` holds a run that learned something else: it would be overwritten."""
    if not (out / "config.json").is_file():
        return
    plain = json.loads(json.dumps(identity))  # as the file has it: no tuples
    known = read_json(out / "config.json", "name another --out, or delete the folder")
    begun = known.get("identity") if isinstance(known, dict) else None
    before, now = dict(flat(begun or {})), dict(flat(plain))
    different = [name for name in now if before.get(name) != now[name]]
    if different:
        name = different[0]
        raise UserError(
            f"{out} holds another run ({name} is {before.get(name, 'not set')} there and "
            f"{now[name]} here); name another --out, or delete that folder"
        )


def outline(plan: RunPlan) -> Iterator[str]:
    """The stages in lines for people, with what is done already."""
    run = Speedrun(plan, command="")
    yield "1  check the machine"
    for number, stage in enumerate(run.stages(), start=2):
        done = run.stamps.valid(stage.name, stage.inputs())
        yield f"{number}  {stage.title}{' (is done)' if done else ''}"


def _terminated(number: int, frame: Any) -> NoReturn:
    sys.exit(128 + number)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        plan = make_plan(arguments)
    except UserError:
        if rank() > 0:
            return 2  # rank 0 was told the same, and says so
        raise
    if plan.dry_run:
        if rank() == 0:
            print(*describe(plan), "", *outline(plan), sep="\n")
        return 0
    if plan.ranks > 1 and not is_rank():
        return launch(plan.ranks, "nanogpt2.speedrun", arguments, plan.max_restarts)
    return Speedrun(plan, shlex.join(["python", "-m", "nanogpt2.speedrun", *arguments])).run()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminated)  # clean up, as on Ctrl-C
    run_command(main)
