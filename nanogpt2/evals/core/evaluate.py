"""CORE of a model: build prompts, score them, gather the ranks' outcomes. Chapter: core."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist

from nanogpt2.errors import StopRequested, UserError
from nanogpt2.evals.core.bundle import load_tasks
from nanogpt2.evals.core.fast.encoding import PromptBuilder
from nanogpt2.evals.core.fast.layout import Job, Key
from nanogpt2.evals.core.fast.scoring import scorer_for
from nanogpt2.evals.core.results import CoreResult, Outcome, Score, build_result, judge
from nanogpt2.evals.core.tasks import PROTOCOLS
from nanogpt2.evals.modes import evaluating

CHUNK_TOKENS = 8_000_000
"""tokens of prompts held at once: 32 MB, and enough to fill batches of like length"""
KEEP_EXAMPLES = 500
"""examples a task up to which prompts are kept for the next evaluation"""

Progress = Callable[[int, int], None]
"""called with examples done and examples in all, on this rank"""


def evaluate_core(
    model: Any,
    tokenizer: Any,
    bundle_dir: Path | str,
    max_per_task: int | None = None,
    *,
    tasks: Sequence[str] | None = None,
    protocol: str = "nanochat",
    progress: Progress | None = None,
) -> CoreResult:
    """CORE of ``model``; under ``torch.distributed`` every rank asks a share and gets the result.

    Args:
        model: ours, a Hugging Face causal model, or any ``model(idx (B, T)) -> (B, T, V)``.
        tokenizer: has ``encode``, ``bos_id`` and ``vocab_size`` (``encode_batch`` is used if any).
        bundle_dir: a folder in the layout of the public bundle.
        max_per_task: examples asked of each task; all by default.
        tasks: labels of some tasks only (their mean is then not CORE).
        protocol: "nanochat" or "dclm".
        progress: told how far it is.

    Raises UserError on a damaged bundle, an unknown task or protocol, or a tokenizer that does not
    fit the model.
    """
    evaluator = CoreEvaluator(
        tokenizer, bundle_dir, max_per_task=max_per_task, tasks=tasks, protocol=protocol
    )
    return evaluator.evaluate(model, progress)


class CoreEvaluator:
    """Evaluates one model after another on the same examples; keeps the prompts of small samples.

    For the training loop, which asks the same sample every so many steps.
    """

    def __init__(
        self,
        tokenizer: Any,
        bundle_dir: Path | str,
        *,
        max_per_task: int | None = None,
        tasks: Sequence[str] | None = None,
        protocol: str = "nanochat",
    ) -> None:
        if max_per_task is not None and max_per_task < 1:
            raise UserError(f"max_per_task is {max_per_task}; give 1 or more, or leave it out")
        if protocol not in PROTOCOLS:
            known = ", ".join(PROTOCOLS)
            raise UserError(f"unknown protocol {protocol!r}; choose one of {known}")
        self.tokenizer, self.protocol, self.max_per_task = tokenizer, protocol, max_per_task
        self.samples = [task.sample(max_per_task) for task in load_tasks(bundle_dir, tasks)]
        self.kept: dict[tuple[int | None, int, int], list[list[Job]]] = {}

    def evaluate(
        self,
        model: Any,
        progress: Progress | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> CoreResult:
        """Outcomes of every example, on every rank.

        ``stop`` is asked before each batch; once it is true on one rank, all raise StopRequested.
        """
        scorer = scorer_for(model)
        check_vocabulary(self.tokenizer, scorer.vocab_size())
        shared = dist.is_initialized()
        rank, world = (dist.get_rank(), dist.get_world_size()) if shared else (0, 1)
        scores: dict[Key, Score] = {}
        stopped = False
        total = sum(len(range(rank, sample.count, world)) for sample in self.samples)
        done = 0
        try:
            with evaluating(model):
                for jobs in self.chunks(scorer.limit(), rank, world):
                    for key, score in scorer.run(jobs, stop):
                        scores[key] = score
                        # options of an example come in any order; count it by its first
                        done += key[2] == 0
                        if progress is not None and key[2] == 0:
                            progress(done, total)
        except StopRequested:
            if not shared:
                raise
            stopped = True  # which the others must hear
        if shared:  # the scores of all ranks, on every rank
            parts: list[Any] = [None] * world
            dist.all_gather_object(parts, None if stopped else scores)
            if None in parts:
                raise StopRequested
            scores = {key: score for part in parts for key, score in part.items()}
        return build_result(self.samples, self.outcomes(scores), self.protocol, self.max_per_task)

    def chunks(self, limit: int | None, rank: int, world: int) -> Iterable[list[Job]]:
        """This rank's jobs: examples rank, rank + world, ... of every task."""
        if self.max_per_task is None or self.max_per_task > KEEP_EXAMPLES:
            return self._build(limit, rank, world)
        at = (limit, rank, world)
        if at not in self.kept:
            self.kept[at] = list(self._build(limit, rank, world))
        return self.kept[at]

    def _build(self, limit: int | None, rank: int, world: int) -> Iterator[list[Job]]:
        builder = PromptBuilder(self.tokenizer, self.protocol, limit)
        jobs: list[Job] = []
        size = 0
        for t, sample in enumerate(self.samples):
            indices = range(rank, sample.count, world)
            for first in range(0, len(indices), 256):
                some = indices[first : first + 256]
                for i, options in zip(some, builder.options(sample, some), strict=True):
                    jobs += [Job((t, i, number), option) for number, option in enumerate(options)]
                    size += sum(len(option.tokens) for option in options)
                if size >= CHUNK_TOKENS:
                    yield jobs
                    jobs, size = [], 0
            builder.pieces.clear()
        if jobs:
            yield jobs

    def outcomes(self, scores: dict[Key, Score]) -> list[list[Outcome]]:
        """Scores of options -> outcome of every example of every task."""
        found: list[list[Outcome]] = []
        for t, sample in enumerate(self.samples):
            kind, field = sample.task.kind, sample.task.kind.options_field
            found.append([])
            for i, item in enumerate(sample.pool[: sample.count]):
                count = 1 if field is None else len(item[field])
                options = [scores[t, i, option] for option in range(count)]
                found[-1].append(judge(kind, options, item.get("gold")))
        return found


def check_vocabulary(tokenizer: Any, model_vocabulary: int | None) -> None:
    """Raise UserError where the tokenizer makes tokens that the model has no embedding for."""
    known = getattr(tokenizer, "vocab_size", None)
    if known is not None and model_vocabulary is not None and known > model_vocabulary:
        raise UserError(
            f"the tokenizer has {known:,} tokens and the model knows {model_vocabulary:,}; "
            "give the tokenizer that the model was trained with"
        )
