"""What a training run tells while it runs, and what it returns. Chapter: loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

StopReason = Literal["SIGINT", "SIGTERM", "max_seconds"]
"""what can end a run before its last step"""


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
    loss_scale: float | None = None
    """in fp16; smaller than before this step where it was left out, and the norm is an older one"""
    samples: list[dict[str, str]] | None = None
    """prompt and text of what the model wrote after this step, where it was asked to"""

    def to_log(self) -> dict[str, float | str]:
        """Its numbers, and each sample as a line under ``sample 1``, ``sample 2``."""
        numbers = {k: v for k, v in vars(self).items() if isinstance(v, (int, float))}
        return numbers | {f"sample {n}": text for n, text in enumerate(self.lines(), 1)}

    def lines(self) -> list[str]:
        """The samples, a line each."""
        return [" ".join((s["prompt"] + s["text"]).split()) for s in self.samples or ()]


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
    """what the products ran in: bf16, fp16, fp32, fp8"""
    attention: str
    """its backends, and what they cost against the best"""
    device_batch_size: int
    """rows of a forward pass, after as many cuts as the memory asked for"""
    compiled: bool
    parameters: int
    world_size: int

    @property
    def exit_code(self) -> int:
        """For a command: 0, or as shells expect after a signal (130 Ctrl-C, 143 SIGTERM)."""
        return {"SIGINT": 130, "SIGTERM": 143}.get(self.stopped_by or "", 0)

    @property
    def onward(self) -> str:
        """What continues it: the seconds are those of the whole run, in all its parts."""
        return "a larger max_seconds" if self.stopped_by == "max_seconds" else "the same command"


class Evaluation(Protocol):
    """What measures a model while it learns; every rank asks its own, at the same steps."""

    def require(self, held_out: Sequence[Path]) -> None:
        """Raise UserError unless the text in these shards can be measured."""

    def bits_per_byte(
        self, model: Any, held_out: Sequence[Path], stop: Callable[[], bool]
    ) -> float:
        """Of that text, over all ranks; StopRequested on all when ``stop`` is true on one."""

    def core(self, model: Any, stop: Callable[[], bool]) -> float:
        """CORE of a sample of the tasks; stopped as that is."""

    def write(self, model: Any) -> list[dict[str, str]]:
        """Prompt and text of what the model writes; any rank may ask alone."""

    def resize(self, tokens: int) -> None:
        """Measure so many tokens of text from now on."""


OnStep = Callable[[StepReport], None]
"""called after every step on rank 0"""
OnMessage = Callable[[str], None]
"""called with sentences for people (resumed from step 200, fp8 cannot be honoured ...) on rank 0"""
