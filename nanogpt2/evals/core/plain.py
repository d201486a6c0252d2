"""CORE the plain way: one example at a time, every prompt encoded whole, logits at every position.

Written from the protocol's description alone and used only to check (and to time) the evaluator.
Chapter: core.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from jinja2 import Template

PROMPTS = {
    "multiple_choice": Template(
        "{% for e in shown %}{{ e.query }}{{ d }}{{ e.choices[e.gold] }}\n\n{% endfor %}"
        "{{ item.query }}{{ d }}{{ option }}"
    ),
    "schema": Template(
        "{% for e in shown %}{{ e.context_options[e.gold] }}{{ d }}{{ e.continuation }}\n\n"
        "{% endfor %}{{ option }}{{ d }}{{ item.continuation }}"
    ),
    "language_modeling": Template(
        "{% for e in shown %}{{ e.context | trim }}{{ d }}{{ e.continuation }}\n\n{% endfor %}"
        "{{ item.context | trim }}{{ d }}{{ option }}"
    ),
}


def plain_core(
    model: Any,
    tokenizer: Any,
    bundle: Path,
    max_per_task: int | None = None,
    tasks: list[str] | None = None,
    limit: int | None = None,
) -> dict[str, list[bool]]:
    """Task label -> outcomes in the order of the shuffled examples."""
    found = {}
    for entry in yaml.safe_load((bundle / "core.yaml").read_text())["icl_tasks"]:
        if tasks is None or entry["label"] in tasks:
            lines = (bundle / "eval_data" / entry["dataset_uri"]).read_text().splitlines()
            data = [json.loads(line) for line in lines]
            random.Random(1337).shuffle(data)
            count = len(data) if max_per_task is None else min(max_per_task, len(data))
            data = data[: max(count, entry["num_fewshot"][0] + 1)]
            found[entry["label"]] = [
                plain_example(model, tokenizer, data, index, entry, limit) for index in range(count)
            ]
    return found


def plain_sequences(
    tokenizer: Any, data: list[dict[str, Any]], index: int, entry: dict[str, Any]
) -> tuple[list[list[int]], list[int]]:
    """Token sequences of one example and where their scored spans start."""
    item, kind, shots = data[index], entry["icl_task_type"], entry["num_fewshot"][0]
    others = [i for i in range(len(data)) if i != index]
    picked = random.Random(1234 + index).sample(others, shots) if shots else []
    more = {"shown": [data[i] for i in picked], "d": entry.get("continuation_delimiter", " ")}

    def encode(option: str) -> list[int]:
        text = PROMPTS[kind].render(item=item, option=option, **more)
        text = text.strip() if kind == "language_modeling" and option == "" else text
        return [tokenizer.bos_id, *tokenizer.encode(text)]

    if kind == "language_modeling":
        before, whole = encode(""), encode(item["continuation"])
        assert whole[: len(before)] == before
        return [whole], [len(before)]
    sequences = [encode(o) for o in item["choices" if "choices" in item else "context_options"]]
    step = -1 if kind == "schema" else 1
    common = 0
    for column in zip(*(sequence[::step] for sequence in sequences), strict=False):
        if len(set(column)) > 1:
            break
        common += 1
    if kind == "schema":
        return sequences, [len(sequence) - common for sequence in sequences]
    return sequences, [common] * len(sequences)


@torch.no_grad()
def plain_example(
    model: Any,
    tokenizer: Any,
    data: list[dict[str, Any]],
    index: int,
    entry: dict[str, Any],
    limit: int | None = None,
) -> bool:
    """Whether one example is answered right."""
    sequences, starts = plain_sequences(tokenizer, data, index, entry)
    if limit is not None:
        cuts = [max(0, len(sequence) - limit) for sequence in sequences]
        starts = [start - cut for start, cut in zip(starts, cuts, strict=True)]
        sequences = [sequence[cut:] for sequence, cut in zip(sequences, cuts, strict=True)]
    width = max(map(len, sequences))
    padded = [sequence + [0] * (width - len(sequence)) for sequence in sequences]
    tokens = torch.tensor(padded, device=getattr(model, "device", None))
    logits = model(tokens)
    targets = tokens.roll(-1, dims=1)
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    losses = losses.view(tokens.shape)
    greedy = logits.argmax(dim=-1)
    spans = [
        slice(start - 1, len(sequence) - 1)
        for start, sequence in zip(starts, sequences, strict=True)
    ]
    if entry["icl_task_type"] == "language_modeling":
        return bool((greedy[0, spans[0]] == targets[0, spans[0]]).all())
    means = [losses[row, span].mean().item() for row, span in enumerate(spans)]
    return means.index(min(means)) == data[index]["gold"]
