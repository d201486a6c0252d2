"""What a training run is given, what it tells while it runs, and what it returns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nanogpt2.errors import UserError
from nanogpt2.recipes import Recipe

StopReason = Literal["SIGINT", "SIGTERM", "max_seconds"]
"""what can end a run before its last step"""


@dataclass(frozen=True)
class TrainSettings:
    """One run. Model, batch, rates and horizon follow from ``recipe`` and ``depth`` by the dial."""

    recipe: Recipe
    data_dir: Path
    """parquet shards; the last one is held out"""
    tokenizer_dir: Path
    """a saved tokenizer; its vocabulary must be the recipe's"""
    out_dir: Path
    """the run's folder: checkpoints/, metrics.jsonl, training.json, tokenizer/"""
    depth: int | None = None
    """None: the recipe's own"""
    steps: int | None = None
    """length of the run and of its schedules; None: the dial's"""
    device: str = "auto"
    """auto: CUDA, else MPS, else the processor"""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """of products; auto: the recipe's where the machine is good at it, else fp32"""
    compile: Literal["auto", "on", "off"] = "auto"
    """auto: where a compiler is found and the run is long enough to earn its start"""
    device_batch_size: int | None = None
    """most rows in one forward pass of a rank; None: the recipe's. The rest is accumulation"""
    eval_every: int = 250
    """steps between measurements of validation bits per byte; 0: only at the end; -1: never"""
    eval_tokens: int = 20 * 2**19
    """how many validation tokens one measurement reads, over all ranks"""
    core_every: int = 0
    """steps between CORE evaluations; 0: never"""
    core_bundle: Path | None = None
    """folder of the CORE tasks, for ``core_every``"""
    core_max_per_task: int | None = 500
    """examples of each CORE task; None: all"""
    checkpoint_every: int = 0
    """steps between checkpoints; 0: only at the end (and when stopped)"""
    keep_last: int = 2
    """how many checkpoints stay, beside the one with the best validation"""
    seed: int = 0
    """of the start values"""
    max_seconds: float | None = None
    """stop after so many seconds of training (evaluations left out), saved and resumable"""
    resume: bool = True
    """continue from the newest whole checkpoint of ``out_dir``, if there is one"""
    resume_from: Path | None = None
    """continue from this checkpoint"""
    more_data: bool = False
    """go on with shards that have come to ``data_dir`` since the run began"""

    def __post_init__(self) -> None:
        for name in ("steps", "device_batch_size", "keep_last", "depth", "eval_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}; it must be at least 1")
        for name in ("core_every", "checkpoint_every"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}; give 0 to switch it off")
        if self.eval_every < -1:
            raise UserError(f"eval_every is {self.eval_every}; give -1 to switch it off")
        if self.max_seconds is not None and not 0 <= self.max_seconds < math.inf:
            raise UserError(f"max_seconds is {self.max_seconds}; it must be at least 0")
        if abs(self.seed) >= 2**63:
            raise UserError(f"seed is {self.seed}; give one that fits into 64 bits")
        if self.core_every and self.core_bundle is None:
            raise UserError(
                "core_every is set and core_bundle is not; name the folder of the tasks"
            )
        for name, choices in (
            ("precision", ("auto", "bf16", "fp32")),
            ("compile", ("auto", "on", "off")),
        ):
            if getattr(self, name) not in choices:
                raise UserError(
                    f"{name} is {getattr(self, name)!r}; choose one of {', '.join(choices)}"
                )


@dataclass(frozen=True)
class StepReport:
    """What is known after a step; also a line of ``metrics.jsonl``."""

    step: int
    """steps done: 1 after the first"""
    steps: int
    """steps of the whole run"""
    tokens: int
    """tokens seen so far"""
    loss: float
    """nats per token, the mean over the step's whole batch, before its update"""
    grad_norm: float
    """L2 norm of the whole batch's gradient over all parameters (logged, never clipped)"""
    lr: float
    """the schedule's factor on every learning rate"""
    seconds: float
    """of training so far, evaluations and saving left out"""
    tokens_per_second: float
    """of this step, over all ranks"""
    mfu: float | None
    """part of the peak arithmetic in use; None where no peak is known"""
    memory_bytes: int
    """peak so far: allocated on the GPU, else resident in memory"""
    val_bpb: float | None = None
    """validation bits per byte, where it was measured after this step"""
    core: float | None = None
    """CORE, where it was measured after this step"""


@dataclass(frozen=True)
class TrainResult:
    """How a run ended; written to ``training.json`` by rank 0."""

    step: int
    """steps done in all"""
    steps: int
    """steps of the whole run; more than ``step`` when it was stopped"""
    tokens: int
    loss: float | None
    """of the last step"""
    val_bpb: float | None
    """the last one measured"""
    best_val_bpb: float | None
    core: float | None
    seconds: float
    """of training, resumed parts included, evaluations and saving left out"""
    tokens_per_second: float | None
    """mean since the start or the resume, the first 10 steps left out"""
    mfu: float | None
    memory_bytes: int
    checkpoint: str | None
    """the newest whole checkpoint, as a path within the run's folder"""
    resumed_from: int | None
    """step of the checkpoint that this run continued"""
    stopped_by: StopReason | None
    """None: it ran to its end"""
    precision: str
    """what the products ran in: bf16, fp32, fp8"""
    compiled: bool
    parameters: int
    world_size: int

    @property
    def exit_code(self) -> int:
        """For a command: 0, or as shells expect after a signal (130 Ctrl-C, 143 SIGTERM)."""
        return {"SIGINT": 130, "SIGTERM": 143}.get(self.stopped_by or "", 0)


OnStep = Callable[[StepReport], None]
"""called after every step on rank 0"""
OnMessage = Callable[[str], None]
"""called with sentences for people (resumed from step 200, fp8 cannot be honoured ...) on rank 0"""
