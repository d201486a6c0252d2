"""What a CORE task is, and which examples it shows: shuffling, sampling, few-shot draws.

DCLM (Li et al., 2024, arXiv 2406.11794). Chapter: core.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum
from typing import Any

SHUFFLE_SEED = 1337
FEWSHOT_SEED = 1234
PROTOCOLS = ("nanochat", "dclm")
"""whose way of asking; see ``prompts``"""


class Kind(str, Enum):
    """How an example is asked and judged."""

    MULTIPLE_CHOICE = "multiple_choice"
    """one query, several continuations: the one with the lowest mean loss"""
    SCHEMA = "schema"
    """several contexts, one continuation: the context under which its mean loss is lowest"""
    LANGUAGE_MODELING = "language_modeling"
    """the greedy continuation must match exactly"""

    @property
    def fields(self) -> dict[str, type]:
        """What a line of the task's file must have."""
        return FIELDS[self]

    @property
    def options_field(self) -> str | None:
        """The list that ``gold`` is an index into."""
        return next((name for name, kind in self.fields.items() if kind is list), None)


FIELDS: dict[Kind, dict[str, type]] = {
    Kind.MULTIPLE_CHOICE: {"query": str, "choices": list, "gold": int},
    Kind.SCHEMA: {"context_options": list, "continuation": str, "gold": int},
    Kind.LANGUAGE_MODELING: {"context": str, "continuation": str},
}


@dataclass(frozen=True)
class Task:
    """One of the 22 tasks with its examples in file order."""

    label: str
    kind: Kind
    shots: int
    """solved examples in front of each question"""
    delimiter: str
    """between a context and its continuation"""
    baseline: float
    """accuracy of guessing by the first table, the one behind the published scores"""
    corrected_baseline: float
    """the same by DCLM's second table"""
    has_categories: bool
    items: list[dict[str, Any]]

    def sample(self, max_items: int | None = None) -> Sample:
        """The examples to ask: shuffled with a fixed seed, then the first ``max_items``."""
        shuffled = list(self.items)
        random.Random(SHUFFLE_SEED).shuffle(shuffled)
        count = len(shuffled) if max_items is None else min(max_items, len(shuffled))
        return Sample(self, shuffled[: max(count, self.shots + 1)], count)


@dataclass(frozen=True)
class Sample:
    """The first ``count`` of ``pool`` are asked; few-shot examples come from all of ``pool``.

    As in the known evaluator, the pool of a capped task is the capped list, so that a small sample
    shows other examples than the whole task does. A cap that leaves too few to show is the one
    exception: then the pool holds ``shots + 1``.
    """

    task: Task
    pool: list[dict[str, Any]]
    count: int

    def fewshot(self, index: int) -> list[dict[str, Any]]:
        """The solved examples in front of example ``index``, never itself."""
        if self.task.shots == 0:
            return []
        draws = random.Random(FEWSHOT_SEED + index)
        # positions in the pool without ``index``: the same draws as from a list of the others
        picked = draws.sample(range(len(self.pool) - 1), self.task.shots)
        return [self.pool[i + (i >= index)] for i in picked]
