"""A small bundle with every kind of task and its odd cases, a tokenizer and a model for it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from nanogpt2.config import GPTConfig
from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.evals.core.bundle import load_tasks
from nanogpt2.evals.core.tasks import Task
from nanogpt2.model.gpt import GPT

WORDS = [
    "the",
    "old",
    "harbour",
    "keeps",
    "a",
    "quiet",
    "light",
    "for",
    "boats",
    "that",
    "come",
    "late",
    "in",
    "rain",
    "of",
    "autumn",
]


def sentence(draws: random.Random, least: int = 3, most: int = 12) -> str:
    """A few words of nonsense."""
    return " ".join(draws.choices(WORDS, k=draws.randint(least, most)))


def choice_item(draws: random.Random) -> dict[str, Any]:
    """Options of different lengths, some equal, some the beginning of another, some odd."""
    choices = [sentence(draws, 1, 5) for _ in range(4)]
    odd = draws.randrange(6)
    if odd == 0:
        choices[2] = choices[1]  # equal
    elif odd == 1:
        choices[1] = choices[0] + " " + choices[1]  # nothing left to score in option 0
        choices = choices[:2]
    elif odd == 2:
        choices = [" " + choice for choice in choices]
    elif odd == 3:
        choices = list("ABCD")
    return {"query": sentence(draws) + "?", "choices": choices, "gold": draws.randrange(2)}


def schema_item(draws: random.Random) -> dict[str, Any]:
    """Two contexts that differ in a word."""
    start, end = sentence(draws), sentence(draws, 1, 4)
    options = [f"{start} {word}" for word in draws.sample(WORDS, 2)]
    return {"context_options": options, "continuation": end, "gold": draws.randrange(2)}


def language_item(draws: random.Random) -> dict[str, Any]:
    """A context that may end in a space, a continuation that may begin with one."""
    context = sentence(draws, 5, 20) + draws.choice(["", " ", "\n\nsays:", " \n"])
    return {
        "context": context,
        "continuation": draws.choice(["", " "]) + sentence(draws, 1, 2),
        "category": draws.choice(["sea", "land"]),
    }


TASKS = [
    ("choices", "multiple_choice", 3, "\nAnswer: ", choice_item),
    ("choices_zeroshot", "multiple_choice", 0, None, choice_item),
    ("schema", "schema", 0, None, schema_item),
    ("schema_shown", "schema", 2, None, schema_item),
    ("words", "language_modeling", 2, "\nAnswer: ", language_item),
    ("words_zeroshot", "language_modeling", 0, None, language_item),
]


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle in the public layout: six tasks of 12 examples."""
    folder = tmp_path_factory.mktemp("bundle")
    draws = random.Random(7)
    entries = []
    for label, kind, shots, delimiter, make in TASKS:
        uri = f"some/{label}.jsonl"
        path = folder / "eval_data" / uri
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(make(draws)) for _ in range(12)]
        path.write_text("\n".join(lines) + "\n")
        entry = {"label": label, "dataset_uri": uri, "num_fewshot": [shots], "icl_task_type": kind}
        if delimiter is not None:
            entry["continuation_delimiter"] = delimiter
        if kind == "language_modeling":
            entry["has_categories"] = True
        entries.append(entry)
    (folder / "core.yaml").write_text(yaml.safe_dump({"icl_tasks": entries}))
    rows = ["Eval Task,Random baseline", *(f"{label},25" for label, *_ in TASKS)]
    (folder / "eval_meta_data.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="session")
def core_tasks(shared_dir: Path) -> list[Task]:
    """The 22 tasks with their 91,037 examples."""
    return load_tasks(shared_dir / "core_eval_bundle")


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """300 tokens learned from the nonsense."""
    draws = random.Random(3)
    return Tokenizer.train((sentence(draws) + ".\n\nAnswer: " for _ in range(300)), 300)


def trained_looking(model: GPT, seed: int = 1) -> GPT:
    """Every matrix drawn anew, so that no output projection is zero and losses differ widely."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 0.2, generator=generator)
            elif parameter.numel() == 1:
                parameter.fill_(0.5)
    return model


def small_config(**changes: Any) -> GPTConfig:
    """A two-layer model with short windows."""
    fields: dict[str, Any] = {
        "sequence_len": 32,
        "vocab_size": 300,
        "n_layer": 2,
        "n_head": 2,
        "n_kv_head": 2,
        "n_embd": 32,
        "window_pattern": "SL",
        "value_gate_channels": 16,
    }
    return GPTConfig(**{**fields, **changes})


@pytest.fixture(scope="session")
def model() -> GPT:
    """A small model of run 1's kind."""
    return trained_looking(GPT(small_config()))
