"""A real training run that takes a second: what the harnesses kill and damage, and tests train."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from nanogpt2.data.shards import write_shard
from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.recipes import RUN1, Recipe
from nanogpt2.run import Loop, Run
from tests.distributed import free_port

RECIPE = replace(
    RUN1,
    name="tiny",
    depth=2,
    aspect=8,
    head_dim=8,
    batch_tokens=256,
    device_batch_size=4,
    iterations=24,
    precision="fp32",
    data="embedded",
    model=replace(RUN1.model, sequence_len=32, vocab_size=270, value_gate_channels=4),
)
"""2 layers of width 16, 8 rows of 32 tokens a step, with every kind of parameter"""
SAME = ("step", "loss", "grad_norm", "lr", "val_bpb", "tokens")
"""what equal runs have in common; seconds and speeds they have not"""

# One server imports torch once; every rank is a fork of it, and starts in no time.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["nanogpt2.training.trainer", "tests.drills.tiny_run"])


@dataclass(frozen=True)
class TinyData:
    """Where the data and the tokenizer lie."""

    data_dir: Path
    tokenizer_dir: Path

    def settings(self, out: Path, recipe: Recipe = RECIPE, **changes: Any) -> Run:
        """A run of 24 steps with a checkpoint every 3 and a measurement every 6.

        ``changes`` are fields of the run or its loop, or ``steps`` or ``device_batch_size``.
        """
        for name, of_recipe in (("steps", "iterations"), ("device_batch_size",) * 2):
            if name in changes:
                recipe = replace(recipe, **{of_recipe: changes.pop(name)})
        watch = {"compile": "off", "checkpoint_every": 3, "eval_every": 6, "eval_tokens": 512}
        watch |= {f.name: changes.pop(f.name) for f in fields(Loop) if f.name in changes}
        values = {"data": self.data_dir, "tokenizer": self.tokenizer_dir, "device": "cpu"}
        return Run(recipe, out, **{**values, "loop": Loop(**watch), **changes})


def prepare(folder: Path) -> TinyData:
    """Three shards of made-up words for training, one held out, and a tokenizer."""
    generator = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(generator.choices(letters, k=generator.randint(2, 7))) for _ in range(200)]
    texts = []
    for shard in range(4):
        lengths = [generator.randint(3, 40) for _ in range(300)]
        documents = [" ".join(generator.choices(words, k=n)) for n in lengths]
        write_shard(folder / "data" / f"shard_{shard:05d}.parquet", documents, row_group_size=25)
        texts += documents
    Tokenizer.train(texts, RECIPE.model.vocab_size).save(folder / "tokenizer")
    return TinyData(folder / "data", folder / "tokenizer")


def start(settings: Run, world_size: int = 1, file_limit: int | None = None) -> list[Any]:
    """The run's ranks as processes; ``file_limit`` bounds the size of the files they can write."""
    port, processes = free_port(), []
    for rank in range(world_size):
        arguments = (settings, rank, world_size, port, file_limit)
        processes.append(CONTEXT.Process(target=_rank, args=arguments))
        processes[-1].start()
    return processes


def _rank(settings: Run, rank: int, world_size: int, port: int, file_limit: int | None) -> None:
    import torch

    from nanogpt2.errors import run_command
    from nanogpt2.training.trainer import train

    torch.set_num_threads(1)
    settings.out.mkdir(parents=True, exist_ok=True)
    log = os.open(settings.out / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if file_limit is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    values = (rank, rank, world_size, "127.0.0.1", port)
    os.environ.update({name: str(value) for name, value in zip(names, values, strict=True)})
    run_command(lambda: train(settings).exit_code)


def curve(run: Path) -> list[dict[str, Any]]:
    """The run's metrics without what depends on the clock."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k in SAME} for line in lines]


def differences(run: Path, reference: Path) -> list[str]:
    """What differs, bit by bit, between the metrics and final tensors of two finished runs."""
    found = ["metrics.jsonl"] if curve(run) != curve(reference) else []
    folder = reference / json.loads((reference / "training.json").read_text())["checkpoint"]
    for path in folder.glob("*.safetensors"):
        other = run / path.relative_to(reference)
        if not other.is_file() or other.read_bytes() != path.read_bytes():
            found.append(path.name)
    return found
