"""The whole run with one command: from documents to a trained model and its report.

``python -m nanogpt2.speedrun`` checks the machine, gets the data, trains a tokenizer and a model,
measures it, lets it write, and reports. A stage whose result is on disk and whole is skipped; an
unfinished training goes on from its last checkpoint. On several GPUs it starts torch.distributed's
launcher; under torchrun it is one of the ranks. Chapter: the speedrun.
"""

from __future__ import annotations

import json
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from filelock import FileLock, Timeout

from nanogpt2.errors import UserError, run_command
from nanogpt2.files import read_json, require_free_space, sha256_of, write_json
from nanogpt2.launching import is_rank, launch, rank
from nanogpt2.options import RunPlan, describe, make_plan, record
from nanogpt2.reporting.credits import credits
from nanogpt2.reporting.report import flat
from nanogpt2.stamps import Stamps

PROMPTS = (
    "The state of the Union is",
    "The largest city in the country",
    "My fellow citizens,",
    "Water is",
    "In the year 1900,",
)
SAMPLING = {"max_new_tokens": 96, "temperature": 0.8, "seed": 0}
POLL_SECONDS = 0.2
BYTES_PER_PARAMETER = 40
"""on disk: weights and optimizer state of three checkpoints"""
TOKENS_PER_SHARD = {"fineweb-edu": 23_700_000, "climbmix": 46_000_000}
"""training tokens that a shard gives after cropping: run 1 read 370 shards, run 4 about 150"""


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
        from nanogpt2.reporting.console import Screen

        self.plan, self.command, self.out = plan, command, plan.out
        self.data_dir = plan.data or plan.out / "data"
        self.tokenizer_dir = plan.out / "tokenizer"
        self.stamps = Stamps(plan.out)
        self.screen = Screen(quiet=rank() > 0)
        self.exit_code = 0

    def stages(self) -> list[Stage]:
        """All but the first, which looks at the machine anew each time."""
        plan, made, trained = self.plan, self.stamps.made, self.trained
        vocabulary, identity = plan.recipe.model.vocab_size, plan.identity()
        core = [str(plan.core_bundle), plan.core_max_per_task]
        stages = [
            Stage("data", "get the data", self.wanted_data, self.get_data),
            Stage(
                "tokenizer",
                "train the tokenizer",
                lambda: [made("data"), vocabulary],
                self.train_tokenizer,
            ),
            Stage(
                "train",
                "train the model",
                lambda: [made("tokenizer"), identity],
                self.train_model,
                together=True,
            ),
            Stage("evaluate", "evaluate bits per byte", trained, self.evaluate, together=True),
            Stage(
                "core",
                "evaluate CORE",
                lambda: [trained(), core],
                self.evaluate_core,
                together=True,
            ),
            Stage("sample", "let it write", lambda: [trained(), PROMPTS, SAMPLING], self.sample),
            Stage("report", "write the report", self.report_inputs, self.report),
        ]
        return [stage for stage in stages if stage.name != "core" or plan.wants_core]

    # The stages

    def wanted_data(self) -> Any:
        """What the data stage should have made: of one's own folder, the files as they are."""
        if self.plan.data is None:
            return [self.plan.recipe.data, self.shards()]
        return sorted([path.name, path.stat().st_size] for path in self.plan.data.glob("*.parquet"))

    def shards(self) -> int:
        """How many training shards of a downloaded data set the run reads."""
        per_shard = TOKENS_PER_SHARD.get(self.plan.recipe.data)
        return -(-self.plan.dial.tokens // per_shard) if per_shard else 0

    def get_data(self) -> list[Path]:
        from nanogpt2.data.corpus import write_embedded_corpus
        from nanogpt2.data.download import download_dataset
        from nanogpt2.data.shards import list_shards

        if self.plan.data is not None:
            list_shards(self.data_dir)
            return []
        if self.plan.recipe.data == "embedded":
            write_embedded_corpus(self.data_dir)
        else:
            download_dataset(self.plan.recipe.data, self.data_dir, shards=self.shards())
        return [self.data_dir]

    def train_tokenizer(self) -> list[Path]:
        raise NotImplementedError

    def train_model(self) -> list[Path] | None:
        from nanogpt2.logs import open_log
        from nanogpt2.training.settings import StepReport, TrainSettings
        from nanogpt2.training.trainer import Trainer

        plan, screen = self.plan, self.screen
        settings = TrainSettings(
            recipe=plan.recipe,
            data_dir=self.data_dir,
            tokenizer_dir=self.tokenizer_dir,
            out_dir=self.out,
            device=plan.device,
            precision=plan.precision,
            seed=plan.seed,
            core_bundle=plan.core_bundle,
            core_max_per_task=plan.core_max_per_task,
            **{name: value for name, value in vars(plan.loop).items() if value is not None},
        )
        log = open_log(plan.log if self.ranks.is_main else "none", self.out, plan.identity())
        with screen.progress() as advance:

            def on_step(report: StepReport) -> None:
                advance(report.step, report.steps, progress_text(report))
                numbers = {k: v for k, v in vars(report).items() if isinstance(v, (int, float))}
                log.log(report.step, numbers)

            result = Trainer(settings, self.ranks, on_step, screen.say).run()
        log.close()
        if result.stopped_by is None:
            return [self.out / "training.json", self.out / str(result.checkpoint)]
        screen.say(
            f"  stopped by {result.stopped_by} after step {result.step:,} of {result.steps:,}"
        )
        screen.say(f"  saved in {result.checkpoint}; the same command continues")
        self.exit_code = result.exit_code
        return None

    def trained(self) -> str:
        """A digest of the training's outcome, the input of what is made of it."""
        path = self.out / "training.json"
        return sha256_of(path) if path.is_file() else ""

    def evaluate(self) -> list[Path]:
        raise NotImplementedError

    def evaluate_core(self) -> list[Path]:
        raise NotImplementedError

    def sample(self) -> list[Path]:
        from nanogpt2.inference.engine import load_engine

        engine = load_engine(self.out, self.plan.device)
        texts = engine.complete(PROMPTS, **SAMPLING)
        samples = [{"prompt": p, "text": t} for p, t in zip(PROMPTS, texts, strict=True)]
        write_json(self.out / "samples.json", samples)
        return [self.out / "samples.json"]

    def report_inputs(self) -> Any:
        """Whatever the report shows."""
        names = ("config.json", "metrics.jsonl", "evaluation.json", "core.json", "samples.json")
        paths = [self.out / name for name in names]
        return [sha256_of(path) if path.is_file() else "" for path in paths]

    def report(self) -> list[Path]:
        from nanogpt2.reporting.report import write_report

        return write_report(self.out)

    # The run

    def run(self) -> int:
        """All stages; returns the exit code: 130 or 143 when a signal ended the training."""
        from nanogpt2.training.distributed import join

        with join(self.plan.device) as self.ranks:
            if self.ranks.is_main:
                self.begin()
            for stage in self.stages():
                self.do(stage)
                if self.exit_code:
                    break
        if self.ranks.is_main and not self.exit_code:
            print(self.out / "report.html")
        return self.exit_code

    def do(self, stage: Stage) -> None:
        """Run one stage unless its result is on disk and whole; rank 0 decides that for all."""
        main = self.ranks.is_main
        done = self.agree(stage.name, main and self.stamps.valid(stage.name, stage.inputs()))
        if main:
            names = [known.name for known in self.stages()]
            place = names.index(stage.name) + 2, len(names) + 1  # the machine was the first
            self.screen.stage(*place, stage.title, "is done" if done else "")
        if done or not (main or stage.together):
            return
        files = stage.work()
        if main and files is not None:
            self.stamps.write(stage.name, stage.inputs(), files)

    def agree(self, key: str, value: bool) -> bool:
        """Rank 0's ``value`` on all ranks, which may have to wait for it as long as a download."""
        if self.ranks.is_main:
            self.ranks.post(key, value)
        while not (known := self.ranks.collect(key)):
            time.sleep(POLL_SECONDS)
        return known[0]

    def begin(self) -> None:
        """The first stage: machine, folder and settings fit each other; ``config.json`` says so."""
        from nanogpt2.reporting.machine import describe_machine

        plan = self.plan
        self.screen.stage(1, len(self.stages()) + 1, "check the machine")
        machine = describe_machine()
        self.screen.say(f"  {machine.get('gpus') or machine['processor']}, {machine['memory']}")
        self.out.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(self.out / "run.lock")
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"another speedrun is at work in {self.out}; wait for it or name another --out"
            ) from None
        check_same_run(self.out, plan.identity())
        needed = BYTES_PER_PARAMETER * plan.dial.parameters["total"]
        require_free_space(self.out, needed, "the run with its checkpoints")
        config = record(plan, self.command, machine)
        config |= {"credits": credits(plan.recipe.data, plan.data), "sampling": SAMPLING}
        write_json(self.out / "config.json", config)
        for line in describe(plan):
            self.screen.say(f"  {line}")


def check_same_run(out: Path, identity: dict[str, Any]) -> None:
    """UserError when ``out`` holds a run that learned something else: it would be overwritten."""
    if not (out / "config.json").is_file():
        return
    plain = json.loads(json.dumps(identity))  # as the file has it: no tuples
    known = read_json(out / "config.json", "name another --out, or delete the folder")
    before, now = dict(flat(known.get("identity", {}))), dict(flat(plain))
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


def progress_text(report: Any) -> str:
    """What a step tells, in few words."""
    text = f"loss {report.loss:.3f}  {report.tokens_per_second:,.0f} tokens/s"
    return text if report.val_bpb is None else f"{text}  validation {report.val_bpb:.4f}"


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
