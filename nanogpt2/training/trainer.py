"""The run around the loop: data in, checkpoints and metrics out. Chapter: loop.

``train(run)`` runs in every rank: alone, or under torchrun (see ``distributed.py``). The steps
are ``fit``'s; after each comes one small sum, in which all ranks agree on the loss and on whether
to stop or to save.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, replace
from typing import Any, get_args

import torch
from torch import Tensor, nn

from nanogpt2.data.loader import TokenLoader
from nanogpt2.depth import shape_batch
from nanogpt2.errors import UserError, run_command
from nanogpt2.evals.bits_per_byte import bits_per_byte
from nanogpt2.evals.core import CoreEvaluator
from nanogpt2.evals.held_out import held_out_batches
from nanogpt2.files import write_json
from nanogpt2.folder import claimed
from nanogpt2.optim import build_optimizer
from nanogpt2.optim.schedules import learning_rate
from nanogpt2.run import Run
from nanogpt2.training.distributed import Ranks, join
from nanogpt2.training.fit import Point, due, fit
from nanogpt2.training.metrics import (
    MetricsFile,
    Speed,
    gone_wrong,
    peak_flops,
    peak_memory,
    scores,
)
from nanogpt2.training.resuming import Start, find_start, keep_tokenizer
from nanogpt2.training.saving import Saver
from nanogpt2.training.settings import (
    OnMessage,
    OnStep,
    StepReport,
    StopReason,
    TrainResult,
)
from nanogpt2.training.setup import (
    build_model,
    choose_precision,
    load_tokenizer,
    switch_on_fp8,
    thin_gradients,
    wants_compilation,
)
from nanogpt2.training.stopping import Stopper, StopRequested

__all__ = ["StepReport", "TrainResult", "train"]

STOP_REASONS: tuple[StopReason, ...] = get_args(StopReason)


def train(
    run: Run,
    on_step: OnStep | None = None,
    on_message: OnMessage | None = None,
) -> TrainResult:
    """Train from prepared data, continuing an unfinished run where there is one.

    SIGTERM and SIGINT end the step, save, and return with ``stopped_by`` set (hand
    ``result.exit_code`` to the shell). Raises UserError for what a user can mend: data, tokenizer,
    a checkpoint of another model, a loss that is NaN or explodes, a full disk.
    """
    with join(run.device) as ranks, ExitStack() as claim:
        if ranks.is_main:
            claim.enter_context(claimed(run.out))
        return Trainer(run, ranks, on_step, on_message).run()


class Trainer:
    """One run, as one rank sees it."""

    def __init__(
        self,
        asked: Run,
        ranks: Ranks,
        on_step: OnStep | None = None,
        on_message: OnMessage | None = None,
    ) -> None:
        self.asked, self.ranks, self.on_step = asked, ranks, on_step
        self.tell = on_message or (lambda line: print(line, file=sys.stderr))
        if not ranks.is_main:
            self.tell = lambda line: None
        self.recipe, self.dial, device = asked.recipe, asked.dial, ranks.device
        self.loop = asked.loop.over(asked.dial)
        self.config, self.steps = self.dial.model, self.dial.iterations
        self.batch = shape_batch(
            self.dial.batch_tokens,
            self.config.sequence_len,
            ranks.world_size,
            self.recipe.device_batch_size,
        )
        self.tokenizer = load_tokenizer(asked.tokenizer_dir, self.config.vocab_size)
        forced = asked.precision != "auto"
        self.precision, remark = choose_precision(asked.wanted_precision, device, forced)
        if remark:
            self.tell(remark)
        self._build_model()
        self.saver = Saver(asked.out, ranks, self.loop.keep_last, self.tell)
        self.held_out: list[tuple[Tensor, Tensor]] | None = None
        self.core: CoreEvaluator | None = None
        """asks a sample of each task, the same one each time"""
        self.report: StepReport | None = None
        """of the last step"""
        self.reason: StopReason | None = None
        """why to stop before the end"""
        self.save_due = self.saving = False
        """whether a checkpoint is waiting to be made, and whether a rank is busy with the last"""
        self.step, self.saved = 0, -1
        """steps done, and the step of the last save"""

    @property
    def will_measure(self) -> bool:
        """Whether the run measures its validation at all."""
        return self.loop.eval_every != -1

    def _build_model(self) -> None:
        device = self.ranks.device
        if device.type != "cpu":
            torch.set_float32_matmul_precision("high")
        self.model = build_model(self.config, device, self.precision, self.asked.seed)
        if self.precision == "fp8":
            switch_on_fp8(self.model, self.recipe)
        self.compiled = wants_compilation(self.loop.compile, device, self.steps)
        if not self.compiled:
            thin_gradients(self.model, self.dial.batch_tokens // self.ranks.world_size)
        forward: Any = torch.compile(self.model, dynamic=False) if self.compiled else self.model
        self.forward: nn.Module = forward
        self.optimizer = build_optimizer(
            self.model,
            self.recipe,
            lr_scale=self.dial.lr_scale,
            weight_decay=self.dial.weight_decay,
            compiled=self.compiled,
            dtype=torch.float32 if self.precision == "fp32" else torch.bfloat16,
        )
        self.optimizer.measure_gradient = True
        peak = peak_flops(device, self.precision)
        self.peak = peak * self.ranks.world_size if peak else None

    # The run

    def run(self) -> TrainResult:
        """From the start, or the newest checkpoint, to the end or a request to stop."""
        start = self._start()
        self.report = start.report
        with Stopper() as self.stopper, self.ranks.training(), self.saver.settled():
            if self.report is not None and self._unmeasured(self.report):
                again = asdict(self.report)
                self._log(again | self._measure(again))
            if self.reason is None:
                self._train()
            self.saver.wait()
        return self._finish(start)

    def _train(self) -> None:
        # saved before it is measured, which may fail; or after, where a signal cut that short
        callbacks = (self._agree, self._save_if_due, self._measure, self._save_if_due, self._log)
        self.began = time.perf_counter()
        fit(
            self.forward,
            self.optimizer,
            self._batches(),
            self.steps,
            self.recipe,
            passes=self.batch.passes,
            first_step=self.step,
            callbacks=callbacks,
            stop=lambda: self.reason is not None,
        )

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """This rank's part of the data; ``data_state`` is where the batch last taken ends."""
        for inputs_BT, targets_BT, state in self.loader:
            self.data_state = state
            yield inputs_BT, targets_BT

    def _unmeasured(self, report: StepReport) -> bool:
        """Whether the run was stopped when it should have measured its validation."""
        return report.val_bpb is None and self._due(self.loop.eval_every)

    def _due(self, every: int | None) -> bool:
        return due(self.step, self.steps, every or 0)

    def _agree(self, point: Point) -> dict[str, Any]:
        """All ranks' loss, whether one of them is still saving, and why to stop, if so."""
        late = self.speed.seconds >= (self.loop.max_seconds or math.inf)
        requested = self.stopper.requested or ("max_seconds" if late else None)
        flags = [float(requested == reason) for reason in STOP_REASONS]
        mine = [point["loss"] / self.ranks.world_size, float(self.saver.busy), *flags]
        mean_loss, busy, *asked = self.ranks.sum(mine)
        norm = self.optimizer.gradient_norm()
        self.speed.add(time.perf_counter() - self.began)
        self.step, self.saving = point["step"], bool(busy)
        self._check(mean_loss, norm)
        self.reason = next((r for r, n in zip(STOP_REASONS, asked, strict=True) if n), None)
        return asdict(self._report(mean_loss, norm))

    def _check(self, loss: float, norm: float) -> None:
        """Stop a run that has gone wrong. Before it is saved: what is on disk stays good."""
        what = gone_wrong(loss, norm, self.config.vocab_size)
        if what is None:
            return
        newest = self.saver.settle()
        good = f"the last good checkpoint is {newest}" if newest else "there is no checkpoint yet"
        raise UserError(
            f"step {self.step}: {what}; {good}; try smaller rates (muon.lr, wte.lr), a warm-up "
            "(warmup_steps=100), or precision fp32"
        )

    def _report(self, loss: float, norm: float) -> StepReport:
        rate = self.batch.tokens / self.speed.last
        return StepReport(
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
        )

    def _mfu(self, tokens_per_second: float | None) -> float | None:
        if self.peak is None or tokens_per_second is None:
            return None
        return self.model.flops_per_token() * tokens_per_second / self.peak

    # Before, between and after the steps

    def _start(self) -> Start:
        """Take up the newest checkpoint, if there is one, and open the run's files."""
        asked, ranks = self.asked, self.ranks
        start = find_start(self, self.tell)
        self.step, self.data_state, self.text = start.step, start.data, start.text
        if self.loop.core_every:  # now: a bundle that cannot be read must not wait until it is due
            if asked.core_bundle is None:
                raise UserError(
                    "core_every is set and core_bundle is not; name the folder of the tasks"
                )
            self.core = CoreEvaluator(
                self.tokenizer, asked.core_bundle, max_per_task=self.loop.core_sample
            )
        seconds = start.report.seconds if start.report else 0.0
        self.speed: Speed = Speed(self.batch.tokens, seconds)
        self.saver.newest = start.folder
        ranks.broadcast(self.model)
        self.loader: TokenLoader = TokenLoader(
            self.text.paths(asked.data_dir, "train"),
            self.tokenizer,
            self.batch.rows,
            self.config.sequence_len,
            device=ranks.device,
            rank=ranks.rank,
            world_size=ranks.world_size,
            state=start.data,
        )
        self.tell(self.loader.describe())
        self.metrics = None
        path, measured = asked.out / "metrics.jsonl", None
        if ranks.is_main:
            keep_tokenizer(asked, self.tokenizer)
            measured = scores(path, self.step)
        found = self.saver.scores = dict(ranks.share("measured", measured))
        known = [*found.values(), start.best]
        self.best = min((score for score in known if score is not None), default=None)
        if start.report is not None:
            start = replace(start, report=replace(start.report, val_bpb=found.get(self.step)))
        if ranks.is_main:
            again = start.report is not None and self._unmeasured(start.report)
            self.metrics = MetricsFile(path, self.step - 1 if again else self.step, self.tell)
        return start

    def _measure(self, point: Point) -> dict[str, float]:
        """Validation and CORE, where they are due; a signal that cuts them short ends the run."""
        if self.reason is not None:
            return {}
        found, alone = {}, self.ranks.world_size == 1
        # Of several ranks none may leave the others waiting: they finish what they have begun.
        with self.stopper.interruptible() if alone else nullcontext():
            try:
                if self._due(self.loop.eval_every):
                    found["val_bpb"] = self.saver.scores[self.step] = self._validate()
                    self.best = min(self.best or math.inf, found["val_bpb"])
                if self.core is not None and self._due(self.loop.core_every):
                    found["core"] = self.core.evaluate(self.model).core
            except StopRequested:
                self.reason = self.stopper.requested
            except Exception:
                if alone and self.saved != self.step:
                    self._save(point | found)
                newest = self.saver.settle()
                self.tell(
                    f"measuring failed after step {self.step:,}; what was learned is saved in "
                    f"{newest}, and the same command measures again"
                )
                raise
            finally:
                self.model.train()
        return found

    def _log(self, point: Point) -> None:
        self.report = StepReport(**point)
        if self.metrics is not None:
            self.metrics.append(asdict(self.report))
        if self.on_step is not None and self.ranks.is_main:
            self.on_step(self.report)
        self.began = time.perf_counter()  # the next step

    def _save_if_due(self, point: Point) -> None:
        """Once a step: at the end at once, before it when no rank is busy with the last one."""
        if self.saved == self.step:
            return
        self.save_due |= self._due(self.loop.checkpoint_every)
        last = self.reason is not None or self.step == self.steps
        if last or (self.save_due and not self.saving):
            self._save(point)

    def _save(self, point: Point) -> None:
        """Begin a checkpoint of this moment."""
        self.save_due, self.saved = False, self.step
        state = {
            "model": self.config.to_dict(),
            "recipe": self.recipe.to_dict(),
            "identity": self.asked.identity(),
            "text": self.text.to_record(),
            "tokenizer": self.tokenizer.digest,
            "progress": {"report": point, "best_val_bpb": self.best},
        }
        self.saver.save(self.step, self.model, self.optimizer, state, self.data_state)

    def _validate(self) -> float:
        """Bits per byte of the held-out shard, the same text each time."""
        if self.held_out is None:
            share = held_out_batches(
                self.text.paths(self.asked.data_dir, "held_out"),
                self.tokenizer,
                self.loop.eval_tokens or 0,
                self.batch.rows,
                self.config.sequence_len,
                self.ranks.rank,
                self.ranks.world_size,
            )
            self.held_out = list(share)
        return bits_per_byte(self.model, self.held_out, self.tokenizer.token_bytes)

    def _finish(self, start: Start) -> TrainResult:
        """Close the files, and write what came of it."""
        newest, report = self.saver.newest, self.report
        result = TrainResult(
            step=self.step,
            steps=self.steps,
            tokens=self.step * self.batch.tokens,
            loss=report.loss if report else None,
            val_bpb=report.val_bpb if report else None,
            best_val_bpb=self.best,
            core=report.core if report else None,
            seconds=self.speed.seconds,
            tokens_per_second=self.speed.mean,
            mfu=self._mfu(self.speed.mean),
            memory_bytes=peak_memory(self.ranks.device),
            checkpoint=os.path.relpath(newest, self.asked.out) if newest else None,
            resumed_from=start.step if start.folder else None,
            stopped_by=self.reason if self.step < self.steps else None,
            precision=self.precision,
            compiled=self.compiled,
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
