"""CORE the plain way: one example at a time, every prompt encoded whole, logits at every position.

The protocol behind GPT-2's 0.256525 on one page. ``evaluate_core`` asks the same questions, many
at a time, and its outcomes must be these. Tasks: DCLM (Li et al., 2024, arXiv 2406.11794).
Chapter: core.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml

from nanogpt2.evals.core.results import CoreResult, TaskResult


def plain_core(
    model: Any,
    tokenizer: Any,
    bundle_dir: Path | str,
    max_per_task: int | None = None,
    *,
    tasks: Sequence[str] | None = None,
    limit: int | None = None,
) -> CoreResult:
    """CORE of ``model(idx (B, T)) -> logits (B, T, V)``; arguments as of ``evaluate_core``.

    ``limit``: tokens that the model reads; a longer prompt loses its beginning.
    """
    bundle, found = Path(bundle_dir), {}
    rows = csv.DictReader((bundle / "eval_meta_data.csv").read_text("utf-8").splitlines())
    guessing = {row["Eval Task"]: float(row["Random baseline"]) / 100 for row in rows}
    for task in yaml.safe_load((bundle / "core.yaml").read_text("utf-8"))["icl_tasks"]:
        if tasks is None or task["label"] in tasks:
            lines = (bundle / "eval_data" / task["dataset_uri"]).read_text("utf-8").split("\n")
            data = [json.loads(line) for line in lines if line.strip()]
            random.Random(1337).shuffle(data)
            count = len(data) if max_per_task is None else min(max_per_task, len(data))
            data = data[: max(count, task["num_fewshot"][0] + 1)]
            correct = [
                plain_example(model, tokenizer, data, index, task, limit) for index in range(count)
            ]
            accuracy, chance = sum(correct) / count, guessing[task["label"]]
            centered = (accuracy - chance) / (1 - chance)
            found[task["label"]] = TaskResult(accuracy, centered, correct)
    return CoreResult(sum(task.centered for task in found.values()) / len(found), found)


@torch.no_grad()
def plain_example(
    model: Any,
    tokenizer: Any,
    data: list[dict[str, Any]],
    index: int,
    task: dict[str, Any],
    limit: int | None = None,
) -> bool:
    """Whether example ``index`` of the shuffled ``data`` is answered right."""
    sequences, starts = plain_sequences(tokenizer, data, index, task)
    if limit is not None:
        cuts = [max(0, len(sequence) - limit) for sequence in sequences]
        starts = [start - cut for start, cut in zip(starts, cuts, strict=True)]
        sequences = [sequence[cut:] for sequence, cut in zip(sequences, cuts, strict=True)]
    width = max(map(len, sequences))
    padded = [sequence + [0] * (width - len(sequence)) for sequence in sequences]
    tokens = torch.tensor(padded, device=getattr(model, "device", None))
    logits, targets = model(tokens), tokens.roll(-1, dims=1)
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    losses, greedy = losses.view(tokens.shape), logits.argmax(dim=-1)
    # the logits at a position are of the token after it; the first token is never scored
    spans = [slice(max(a, 1) - 1, len(s) - 1) for a, s in zip(starts, sequences, strict=True)]
    if task["icl_task_type"] == "language_modeling":
        return bool((greedy[0, spans[0]] == targets[0, spans[0]]).all())
    means = [losses[row, span].mean().item() for row, span in enumerate(spans)]
    return means.index(min(means)) == data[index]["gold"]


def plain_sequences(
    tokenizer: Any, data: list[dict[str, Any]], index: int, task: dict[str, Any]
) -> tuple[list[list[int]], list[int]]:
    """The token sequence of each option, and where in it the scored tokens start."""
    kind, shots = task["icl_task_type"], task["num_fewshot"][0]
    delimiter = task.get("continuation_delimiter", " ")
    others = [item for place, item in enumerate(data) if place != index]
    shown = random.Random(1234 + index).sample(others, shots)
    front = "".join(plain_text(item, delimiter, right_answer(item)) + "\n\n" for item in shown)

    def text(option: str) -> str:
        return front + plain_text(data[index], delimiter, option)

    def encode(text: str) -> list[int]:
        return [tokenizer.bos_id, *tokenizer.encode(text)]

    if kind == "language_modeling":  # scored: what the question, its last space off, is without
        whole = encode(text(data[index]["continuation"]))
        return [whole], [_common([encode(text("").strip()), whole])]
    if kind == "multiple_choice":  # scored: what the choices do not share
        sequences = [encode(text(choice)) for choice in data[index]["choices"]]
        return sequences, [_common(sequences)] * len(sequences)
    # schema, scored: what all share at the end
    sequences = [encode(text(context)) for context in data[index]["context_options"]]
    shared = _common([sequence[::-1] for sequence in sequences])
    return sequences, [len(sequence) - shared for sequence in sequences]


def plain_text(item: dict[str, Any], delimiter: str, option: str) -> str:
    """One example with ``option`` filled in: a choice, a context or a continuation."""
    if "choices" in item:
        return item["query"] + delimiter + option
    if "context_options" in item:
        return option + delimiter + item["continuation"]
    return item["context"].strip() + delimiter + option


def right_answer(item: dict[str, Any]) -> str:
    """The right option, or the continuation where there are no options."""
    options = item.get("choices") or item.get("context_options")
    return options[item["gold"]] if options else item["continuation"]


def _common(sequences: list[list[int]]) -> int:
    """How many tokens all sequences have in common at their beginning."""
    same = [len(set(column)) == 1 for column in zip(*sequences, strict=False)]
    return same.index(False) if False in same else len(same)
