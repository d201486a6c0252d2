"""The training loop: data in, checkpoints and metrics out. Chapter: the loop.

``train(settings)`` runs in every rank: alone, or under torchrun (see ``distributed.py``). One step:
gradients of the whole batch over several passes, one update (where the ranks meet), one small sum
in which all ranks agree on the loss and on whether to stop or to save.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from nanogpt2.data.loader import TokenLoader
from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.depth import dial
from nanogpt2.errors import UserError, run_command
from nanogpt2.evals.bits_per_byte import bits_per_byte
from nanogpt2.evals.core import CoreEvaluator
from nanogpt2.evals.held_out import held_out_batches
from nanogpt2.files import write_json
from nanogpt2.optim import apply_schedules, build_optimizer
from nanogpt2.optim.schedules import learning_rate
from nanogpt2.training.distributed import Ranks, join
from nanogpt2.training.metrics import MetricsFile, Speed, peak_flops, peak_memory
from nanogpt2.training.resuming import Start, find_start
from nanogpt2.training.saving import Saver
from nanogpt2.training.settings import OnMessage, OnStep, StepReport, TrainResult, TrainSettings
from nanogpt2.training.setup import (
    build_model,
    choose_precision,
    shape_batch,
    switch_on_fp8,
    thin_gradients,
    wants_compilation,
)
from nanogpt2.training.stopping import Stopper, StopRequested

__all__ = ["StepReport", "TrainResult", "TrainSettings", "train"]

StopReason = Literal["SIGINT", "SIGTERM", "max_seconds"]
STOP_REASONS: tuple[StopReason, ...] = ("SIGINT", "SIGTERM", "max_seconds")


def train(
    settings: TrainSettings,
    on_step: OnStep | None = None,
    on_message: OnMessage | None = None,
) -> TrainResult:
    """Train from prepared data, continuing an unfinished run where there is one.

    SIGTERM and SIGINT end the step, save, and return with ``stopped_by`` set (hand
    ``result.exit_code`` to the shell). Raises UserError for what a user can mend: data, tokenizer,
    a checkpoint of another model, a loss that is NaN or explodes, a full disk.
    """
    with join(settings.device) as ranks:
        return Trainer(settings, ranks, on_step, on_message).run()


class Trainer:
    """One run, as one rank sees it."""

    def __init__(
        self,
        settings: TrainSettings,
        ranks: Ranks,
        on_step: OnStep | None = None,
        on_message: OnMessage | None = None,
    ) -> None:
        self.settings, self.ranks, self.on_step = settings, ranks, on_step
        self.tell = on_message or (lambda line: print(line, file=sys.stderr))
        if not ranks.is_main:
            self.tell = lambda line: None
        self.recipe, device = settings.recipe, ranks.device
        self.plan = dial(settings.depth, self.recipe)
        self.config = self.plan.model
        self.steps = settings.steps or self.plan.iterations
        self.batch = shape_batch(
            self.plan.batch_tokens,
            self.config.sequence_len,
            ranks.world_size,
            settings.device_batch_size or self.recipe.device_batch_size,
        )
        self.tokenizer = self._load_tokenizer()
        forced = settings.precision != "auto"
        wanted = settings.precision if forced else self.recipe.precision
        self.precision, remark = choose_precision(wanted, device, forced)
        if remark:
            self.tell(remark)
        self._build_model()
        self.saver = Saver(settings.out_dir, ranks, settings.keep_last, self.tell)
        self.held_out: list[tuple[Tensor, Tensor]] | None = None
        self.core: CoreEvaluator | None = None
        self.save_due = False

    def _load_tokenizer(self) -> Tokenizer:
        tokenizer = Tokenizer.load(self.settings.tokenizer_dir)
        if tokenizer.vocab_size != self.config.vocab_size:
            raise UserError(
                f"the tokenizer in {self.settings.tokenizer_dir} has {tokenizer.vocab_size:,} "
                f"tokens and the model {self.config.vocab_size:,}; train a tokenizer of that size, "
                f"or set vocab_size={tokenizer.vocab_size}"
            )
        return tokenizer

    def _build_model(self) -> None:
        settings, device = self.settings, self.ranks.device
        if device.type != "cpu":
            torch.set_float32_matmul_precision("high")
        self.model = build_model(self.config, device, self.precision, settings.seed)
        if self.precision == "fp8":
            switch_on_fp8(self.model, self.recipe)
        self.compiled = wants_compilation(settings.compile, device, self.steps)
        if not self.compiled:
            thin_gradients(self.model, self.plan.batch_tokens // self.ranks.world_size)
        self.forward = torch.compile(self.model, dynamic=False) if self.compiled else self.model
        self.optimizer = build_optimizer(
            self.model,
            self.recipe,
            lr_scale=self.plan.lr_scale,
            weight_decay=self.plan.weight_decay,
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
        report, reason = start.report, None
        with Stopper() as self.stopper, self.ranks.training():
            if report is not None and self._unmeasured(report):
                report, reason = self._measure(report)
                self._log(report)
            while self.step < self.steps and reason is None:
                report, busy, reason = self._advance()
                if reason is None:
                    report, reason = self._measure(report)
                self._log(report)
                self.save_due |= self._due(self.settings.checkpoint_every)
                last = reason is not None or self.step == self.steps
                if last or (self.save_due and not busy):
                    self._save(report)
            self.saver.wait()
        return self._finish(start, report, reason)

    def _unmeasured(self, report: StepReport) -> bool:
        """Whether the run was stopped when it should have measured its validation."""
        return report.val_bpb is None and self._due(self.settings.eval_every)

    def _due(self, every: int) -> bool:
        return (self.step == self.steps and every >= 0) or (every > 0 and self.step % every == 0)

    def _advance(self) -> tuple[StepReport, bool, StopReason | None]:
        """One step: its report, whether a rank is still saving, and why to stop, if so."""
        began = time.perf_counter()
        loss = self._accumulate_gradients()
        apply_schedules(self.optimizer, self.recipe, self.step, self.steps)
        self.optimizer.step()
        self.model.zero_grad(set_to_none=True)
        late = self.speed.seconds >= (self.settings.max_seconds or math.inf)
        requested = self.stopper.requested or ("max_seconds" if late else None)
        flags = [float(requested == reason) for reason in STOP_REASONS]
        mine = [loss.item() / self.ranks.world_size, float(self.saver.busy), *flags]
        mean_loss, busy, *asked = self.ranks.sum(mine)
        norm = self.optimizer.gradient_norm()
        self.speed.add(time.perf_counter() - began)
        self.step += 1
        self._check(mean_loss, norm)
        reason = next((r for r, n in zip(STOP_REASONS, asked, strict=True) if n), None)
        return self._report(mean_loss, norm), bool(busy), reason

    def _accumulate_gradients(self) -> Tensor:
        """Gradients of this rank's part of the batch; returns its mean loss (on the device)."""
        total = torch.zeros((), device=self.ranks.device)
        for _ in range(self.batch.passes):
            inputs_BT, targets_BT, self.data_state = next(self.batches)
            loss = self.forward(inputs_BT, targets_BT) / self.batch.passes
            loss.backward()
            total += loss.detach()
        return total

    def _check(self, loss: float, norm: float) -> None:
        """Stop a run that has gone wrong. Before it is saved: what is on disk stays good."""
        limit = 2 * math.log(self.config.vocab_size)  # twice the loss of knowing nothing
        if math.isfinite(norm) and loss < limit:
            return
        what = f"the loss exploded to {loss:.3g}" if math.isfinite(loss) else f"the loss is {loss}"
        if loss < limit:
            what = f"the gradient's norm is {norm}"
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
        settings, ranks = self.settings, self.ranks
        start = find_start(self, self.tell)
        self.step, self.data_state, self.best = start.step, start.data, start.best
        seconds = start.report.seconds if start.report else 0.0
        self.speed = Speed(self.batch.tokens, seconds)
        self.saver.newest = start.folder
        ranks.broadcast(self.model)
        self.batches: Iterator[tuple[Tensor, Tensor, dict[str, Any]]] = iter(
            TokenLoader(
                settings.data_dir,
                self.tokenizer,
                self.batch.rows,
                self.config.sequence_len,
                split="train",
                device=ranks.device,
                rank=ranks.rank,
                world_size=ranks.world_size,
                state=start.data,
            )
        )
        self.metrics = None
        if ranks.is_main:
            self._keep_tokenizer()
            again = start.report is not None and self._unmeasured(start.report)
            keep = self.step - 1 if again else self.step
            self.metrics = MetricsFile(settings.out_dir / "metrics.jsonl", keep, self.tell)
        return start

    def _keep_tokenizer(self) -> None:
        """A run holds its tokenizer: a model without it is of no use."""
        kept = self.settings.out_dir / "tokenizer"
        if self.settings.tokenizer_dir.resolve() != kept.resolve():
            self.tokenizer.save(kept)

    def _measure(self, report: StepReport) -> tuple[StepReport, StopReason | None]:
        """Validation and CORE, where they are due; and why to stop, if a signal cut them short."""
        settings, alone = self.settings, self.ranks.world_size == 1
        # Of several ranks none may leave the others waiting: they finish what they have begun.
        with self.stopper.interruptible() if alone else nullcontext():
            try:
                if self._due(settings.eval_every):
                    report = replace(report, val_bpb=self._validate())
                    self.best = min(self.best or math.inf, report.val_bpb or math.inf)
                if settings.core_every and self._due(settings.core_every):
                    report = replace(report, core=self._evaluate_core())
            except StopRequested:
                return report, self.stopper.requested
            finally:
                self.model.train()
        return report, None

    def _log(self, report: StepReport) -> None:
        if self.metrics is not None:
            self.metrics.append(asdict(report))
        if self.on_step is not None and self.ranks.is_main:
            self.on_step(report)

    def _save(self, report: StepReport) -> None:
        """Begin a checkpoint of this moment."""
        self.save_due = False
        state = {
            "model": self.config.to_dict(),
            "recipe": self.recipe.to_dict(),
            "steps": self.steps,
            "seed": self.settings.seed,
            "progress": {
                "report": asdict(report),
                "val_bpb": report.val_bpb,
                "best_val_bpb": self.best,
            },
        }
        self.saver.save(self.step, self.model, self.optimizer, state, self.data_state)

    def _validate(self) -> float:
        """Bits per byte of the held-out shard, the same text each time."""
        if self.held_out is None:
            share = held_out_batches(
                self.settings.data_dir,
                self.tokenizer,
                self.settings.eval_tokens,
                self.batch.rows,
                self.config.sequence_len,
                self.ranks.rank,
                self.ranks.world_size,
            )
            self.held_out = list(share)
        return bits_per_byte(self.model, self.held_out, self.tokenizer.token_bytes)

    def _evaluate_core(self) -> float:
        """CORE of a sample of each task, the same one each time."""
        settings = self.settings
        if self.core is None:
            bundle = settings.core_bundle or Path()
            self.core = CoreEvaluator(
                self.tokenizer, bundle, max_per_task=settings.core_max_per_task
            )
        return self.core.evaluate(self.model).core

    def _finish(
        self, start: Start, report: StepReport | None, reason: StopReason | None
    ) -> TrainResult:
        """Close the files, and write what came of it."""
        newest = self.saver.newest
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
            checkpoint=os.path.relpath(newest, self.settings.out_dir) if newest else None,
            resumed_from=start.step if start.folder else None,
            stopped_by=reason if self.step < self.steps else None,
            precision=self.precision,
            compiled=self.compiled,
            parameters=self.plan.parameters["total"],
            world_size=self.ranks.world_size,
        )
        if self.metrics is not None:
            self.metrics.close()
            write_json(self.settings.out_dir / "training.json", asdict(result))
        return result


if __name__ == "__main__":
    from nanogpt2.training.command import main

    run_command(main)
