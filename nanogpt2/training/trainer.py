"""The run around the loop: data in, checkpoints and metrics out. Chapter: loop.

``train(run)`` runs in every rank: alone, or under torchrun (see ``ranks``). The steps are those of
``fit``; after each all ranks agree on the loss, and on whether to stop or to save.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from nanogpt2.data.loader import TokenLoader
from nanogpt2.depth import shape_batch
from nanogpt2.errors import StopRequested, UserError, run_command
from nanogpt2.files import write_json
from nanogpt2.folder import claimed
from nanogpt2.optim import apply_schedules
from nanogpt2.optim.schedules import learning_rate
from nanogpt2.run import Run
from nanogpt2.training import length as by_clock
from nanogpt2.training.feed import Feed
from nanogpt2.training.fit import Point, due, fit
from nanogpt2.training.garbage import collected_by_hand
from nanogpt2.training.length import FIRST_STEPS, Length
from nanogpt2.training.measuring import Measuring
from nanogpt2.training.metrics import MetricsFile, Speed, peak_flops, peak_memory, require_sound
from nanogpt2.training.onward import identity_of
from nanogpt2.training.profiler import Profiler
from nanogpt2.training.ranks import Ranks, join
from nanogpt2.training.saver import Saver
from nanogpt2.training.settings import (
    Evaluation,
    OnMessage,
    OnStep,
    StepReport,
    StopReason,
    TrainResult,
)
from nanogpt2.training.setup import build_learner, load_tokenizer
from nanogpt2.training.start import Start, find_start
from nanogpt2.training.stopping import Stopper, agreed

__all__ = ["StepReport", "TrainResult", "train"]


def train(
    run: Run,
    on_step: OnStep | None = None,
    on_message: OnMessage | None = None,
    ranks: Ranks | None = None,
) -> TrainResult:
    """Train from prepared data, continuing an unfinished run where there is one.

    SIGTERM and SIGINT end the step, save, and return with ``stopped_by`` set (hand
    ``result.exit_code`` to the shell). Raises UserError for what a user can mend: data, tokenizer,
    a checkpoint of another model, a loss that is NaN or explodes, a full disk.

    ``ranks``: those who have joined already, and whose first one has claimed the run's folder.
    """
    # the command stands on a room above which the trainer itself does not reach
    from nanogpt2.evals.during import Questions

    if ranks is not None:
        return Trainer(run, ranks, Questions, on_step, on_message).run()
    with join(run.device) as joined, ExitStack() as claim:
        if joined.is_main:
            claim.enter_context(claimed(run.out))
        return Trainer(run, joined, Questions, on_step, on_message).run()


class Trainer:
    """One run, as one rank sees it.

    ``evaluation`` makes what measures it: (run, tokenizer, rows of a forward pass, rank, number of
    ranks).
    """

    def __init__(
        self,
        asked: Run,
        ranks: Ranks,
        evaluation: Callable[..., Evaluation],
        on_step: OnStep | None = None,
        on_message: OnMessage | None = None,
    ) -> None:
        by_clock.require_steady_start(asked)
        self.asked, self.ranks, self.on_step = asked, ranks, on_step
        self.tell = on_message or (lambda line: print(line, file=sys.stderr))
        if not ranks.is_main:
            self.tell = lambda line: None
        self.recipe, self.dial = asked.recipe, asked.dial
        self.loop = asked.loop.over(asked.dial)
        self.config, self.steps = self.dial.model, self.dial.iterations
        self.batch = shape_batch(
            self.dial.batch_tokens,
            self.config.sequence_len,
            ranks.world_size,
            self.recipe.device_batch_size,
        )
        self.tokenizer = load_tokenizer(asked.tokenizer_dir, self.config.vocab_size)
        place = (ranks.rank, ranks.world_size)
        questions = evaluation(asked, self.tokenizer, self.batch.rows, *place)
        try:
            self.learner = build_learner(asked, ranks, self.tell)
        except torch.OutOfMemoryError:
            raise UserError(
                f"the memory of {ranks.device} does not hold the model and its optimizer; choose a "
                "smaller --depth, or more ranks"
            ) from None
        self.model, self.optimizer = self.learner.model, self.learner.optimizer
        self.peak = peak_flops(ranks.device, self.learner.precision)
        self.saver = Saver(asked.out, ranks, self.loop.keep_last, self.tell)
        profiled = self.loop.profiled if ranks.is_main else range(0)
        self.profiler = Profiler(asked.out, profiled, ranks.device, self.tell)
        self.stopper = Stopper()
        self.measuring = Measuring(asked, questions, self.learner, self.loop, ranks, self.stopper)
        self.saver.scores = self.measuring.scores
        self.identity = {
            "model": self.config.to_dict(),
            "recipe": self.recipe.to_dict(),
            "identity": identity_of(asked) if ranks.is_main else asked.identity(),
            "tokenizer": self.tokenizer.digest,
        }
        """what makes two runs the same, as their checkpoints say it"""
        self.length: Length | None = None
        """what the clock made of ``minutes``; None: nothing, or nothing yet"""
        self.opening = False
        """in the steps before that: nothing is saved unless the run is stopped"""
        self.step, self.saved = 0, -1
        """steps done, and the step of the last save"""
        self.report: StepReport | None = None
        """of the last step"""
        self.reason: StopReason | None = None
        """why to stop before the end"""
        self.save_due = self.saving = False
        """whether a checkpoint is waiting to be made, and whether a rank is busy with the last"""
        self.norm = 0.0
        """of the last step's gradient"""

    def run(self) -> TrainResult:
        """From the start, or the newest checkpoint, to the end or a request to stop."""
        self.start = self.find_start()
        if self.start.length and self.start.step >= self.start.length.after:
            self._take(self.start.length)
        again = self._take_up()
        with self.stopper, self.ranks.training(), collected_by_hand(), ExitStack() as ending:
            ending.callback(self.saver.settle)  # however it ends
            ending.callback(self.profiler.end)
            try:
                if again is not None:
                    self._log(again | self._measure(again) | self._sample(again))
                if self.reason is None:
                    self._train()
            except torch.OutOfMemoryError:
                raise self.feed.out_of_memory(self.step, self.saver.said()) from None
            self.saver.wait()
            if self.reason is None:  # a signal may have come after the last step was read
                self.reason = agreed(self.ranks.sum(self.stopper.requests(False)))
        return self._finish()

    # Before the steps

    def find_start(self) -> Start:
        """Fill model and optimizer from the newest checkpoint, if there is one."""
        return find_start(
            self.asked,
            self.identity,
            self.model,
            self.optimizer,
            self.ranks,
            self.measuring.require,
            self.tell,
        )

    def _take_up(self) -> Point | None:
        """Open the run's files at its start; the point that is still to be measured, if any.

        A run may have been stopped when it should have measured its validation.
        """
        start, ranks = self.start, self.ranks
        self.step, self.report = start.step, start.report
        self.speed = Speed(self.batch.tokens, start.report.seconds if start.report else 0.0)
        self.saver.newest = start.folder
        if self.learner.scaling and start.loss_scale:
            self.learner.scaling.take_up(start.loss_scale)
        loader = TokenLoader(
            start.text.paths(self.asked.data_dir, "train"),
            self.tokenizer,
            self.batch.rows,
            self.config.sequence_len,
            device=ranks.device,
            rank=ranks.rank,
            world_size=ranks.world_size,
            state=start.data,
            weights=start.text.weights,
            sources=start.text.sources,
        )
        self.tell(loader.describe())
        self.feed = Feed(loader, self.batch, start.data, ranks, self.tell)
        self.measuring.take_up(start)
        again = None
        if self.report is not None:
            bpb, core = (of.get(self.step) for of in (self.measuring.scores, self.measuring.cores))
            self.report = replace(self.report, val_bpb=bpb, core=core)
            its_own = start.folder and self.asked.out.resolve() in start.folder.resolve().parents
            if its_own and self.measuring.lacks(self.step, self.steps):
                again = asdict(self.report)
        kept, path = self.step - (again is not None), self.asked.out / "metrics.jsonl"
        self.metrics = MetricsFile(path, kept, self.tell) if ranks.is_main else None
        if self.metrics and self.report and again is None and self.metrics.last == self.step - 1:
            self.metrics.append(asdict(self.report))  # killed between its checkpoint and this line
        return again

    # The steps

    def _train(self) -> None:
        known = self.start.length
        self.opening = self.length is None and bool(known or self._may_set_length())
        if self.opening:
            self._fit(known.after if known else self.step + FIRST_STEPS)
            if self.reason is not None:
                return
            self._take(known or self._set_length())
        self._fit(self.steps)

    def _fit(self, steps: int) -> None:
        """Up to ``steps``, by the schedules of the run's length as far as it is known.

        Where the memory does not hold a pass of the first steps, the step is begun anew with
        smaller ones; OutOfMemoryError where it runs out later, or one row is too much.
        """
        # saved before it is measured, which may fail; or after, where a signal cut that short
        watch = (self._save_if_due, self._measure, self._save_if_due, self._sample)
        profiler = self.profiler
        callbacks = (self._account, profiler.step_done, *watch, profiler.step_next, self._log)
        scaling: Any = self.learner.scaling
        while True:
            self.profiler.begin(self.step)
            self.began = time.perf_counter()
            try:
                fit(
                    scaling or self.learner.forward,
                    scaling or self.optimizer,
                    self.feed,
                    steps,
                    self._before_update,
                    passes=self.feed.passes,
                    first_step=self.step,
                    callbacks=callbacks,
                    stop=lambda: self.reason is not None,
                    read=self._read,
                )
                return
            except torch.OutOfMemoryError as error:
                if not self.feed.recovers(error):
                    raise
            self.model.zero_grad(set_to_none=True)
            self.feed.cut()  # here, where the error holds no activations any more

    def _before_update(self, optimizer: Any, step: int, steps: int) -> None:
        self.feed.gradients_are_there()
        apply_schedules(optimizer, self.recipe, step, self.steps)

    def _may_set_length(self) -> bool:
        """Whether it is to be set, and enough steps are left to measure the speed by."""
        return self.start.sets_length and self.step + FIRST_STEPS <= self.steps

    def _set_length(self) -> Length:
        """By the speed that rank 0 has seen."""
        seen = self.asked, self.step, self.speed.seconds, self.speed.mean or 0.0
        length = Length(**self.ranks.share(lambda: asdict(by_clock.set_length(*seen))))
        self.tell(length.why)
        return length

    def _take(self, length: Length) -> None:
        """From here on the run is so long, and is watched and saved as often as fits that."""
        self.length, self.steps, self.opening = length, length.steps, False
        self.loop = by_clock.loop_of(self.asked, length.steps)
        self.measuring.follow(self.loop)

    def _read(self, loss: Tensor) -> float:
        """The ranks' mean loss. With it travel the gradient's norm, whether a rank is still saving,
        and why to stop, if so: a step waits for its device once."""
        square, busy = self.optimizer.gradient_square(), float(self.saver.busy)
        total, norm2, saving, *asked = self.ranks.sum([loss, square, busy, *self._requests()])
        self.norm = torch.tensor([norm2]).sqrt().item()
        self.saving = bool(saving)
        self.reason = agreed(asked)
        return total / self.ranks.world_size

    def _requests(self) -> list[float]:
        # by the first rank's clock: the others' counts also their waiting for what it writes
        most = self.loop.max_seconds
        late = most is not None and self.speed.seconds >= most
        return self.stopper.requests(late and self.ranks.is_main)

    def _account(self, point: Point) -> Point:
        """What is known after a step; UserError where it has gone wrong."""
        self.speed.add(time.perf_counter() - self.began)
        self.step, loss, norm = point["step"], point["loss"], self.norm
        self.feed.step_done()
        require_sound(self.step, loss, norm, self.config.vocab_size, self.saver.said)
        rate = self.batch.tokens / self.speed.last
        report = StepReport(
            step=self.step,
            steps=self.steps,
            tokens=self.step * self.batch.tokens,
            loss=loss,
            grad_norm=norm,
            lr=learning_rate(self.recipe, self.step - 1, self.steps),
            seconds=self.speed.seconds,
            tokens_per_second=rate,
            mfu=self._mfu(rate),
            memory_bytes=peak_memory(self.ranks.device),
            loss_scale=self.learner.scaling.scale if self.learner.scaling else None,
        )
        return asdict(report)

    def _mfu(self, tokens_per_second: float | None) -> float | None:
        if self.peak is None or tokens_per_second is None:
            return None
        peak = self.peak * self.ranks.world_size
        return self.model.flops_per_token() * tokens_per_second / peak

    def _save_if_due(self, point: Point) -> None:
        """Once a step: at the end at once, before it when no rank is busy with the last one."""
        if self.saved == self.step:
            return
        is_due = due(self.step, self.steps, self.loop.checkpoint_every or 0)
        self.save_due |= is_due and not self.opening
        last = self.reason is not None or self.step == self.steps
        if last or (self.save_due and not self.saving):
            self._save(point)

    def _save(self, point: Point) -> None:
        """Begin a checkpoint of this moment."""
        self.save_due, self.saved = False, self.step
        # a copy: what is measured joins the point while the file is being written
        progress = {"report": dict(point), "best_val_bpb": self.measuring.best}
        if self.learner.scaling:
            progress["loss_scale"] = self.learner.scaling.record()
        state: dict[str, Any] = {
            **self.identity,
            "text": self.start.text.to_record(),
            "progress": progress,
        }
        if self.length or self.start.sets_length:  # None while it is open
            state["length"] = self.length and asdict(self.length)
        self.saver.save(self.step, self.model, self.optimizer, state, self.feed.state())
        gc.collect()

    def _measure(self, point: Point) -> dict[str, float]:
        """Validation and CORE, where they are due; a signal that cuts them short ends the run."""
        found = dict[str, float]()
        if self.reason is not None:
            return found
        try:
            self.measuring.measure(self.step, self.steps, found)
        except StopRequested:
            self.reason = agreed(self.ranks.sum(self._requests()))
        except Exception:
            if self.ranks.world_size == 1 and self.saved != self.step:
                self._save(point | found)
            newest = self.saver.settle()
            self.tell(
                f"measuring failed after step {self.step:,}; what was learned is saved in "
                f"{newest}, and the same command measures again"
            )
            raise
        return found

    def _sample(self, point: Point) -> dict[str, Any]:
        return self.measuring.sample(self.step, self.steps)

    def _log(self, point: Point) -> None:
        self.report = StepReport(**point)
        for line in self.report.lines():
            self.tell(f"step {self.step:,}: {line}")
        if self.metrics is not None:
            self.metrics.append(asdict(self.report))
        if self.on_step is not None and self.ranks.is_main:
            self.on_step(self.report)
        self.began = time.perf_counter()  # the next step

    def _finish(self) -> TrainResult:
        """Close the files, and write what came of it."""
        newest, report, start = self.saver.newest, self.report, self.start
        if self.profiler.told:
            self.tell(self.profiler.told)
        in_time = self.reason == "max_seconds" and self.step == self.steps
        result = TrainResult(
            step=self.step,
            steps=self.steps,
            tokens=self.step * self.batch.tokens,
            loss=report.loss if report else None,
            val_bpb=report.val_bpb if report else None,
            best_val_bpb=self.measuring.best,
            core=report.core if report else None,
            seconds=self.speed.seconds,
            tokens_per_second=self.speed.mean,
            mfu=self._mfu(self.speed.mean),
            memory_bytes=peak_memory(self.ranks.device),
            checkpoint=os.path.relpath(newest, self.asked.out) if newest else None,
            resumed_from=start.step if start.folder else None,
            stopped_by=None if in_time else self.reason,
            precision=self.learner.precision,
            attention=self.learner.attention,
            device_batch_size=self.feed.rows,
            compiled=self.learner.compiled,
            parameters=self.dial.parameters["total"],
            world_size=self.ranks.world_size,
        )
        if self.metrics is not None:
            self.metrics.close()
            write_json(self.asked.out / "training.json", asdict(result))
        return result


if __name__ == "__main__":
    from nanogpt2.training.command import main

    run_command(main)
