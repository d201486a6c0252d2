"""Feed every reader damaged and hostile files; all must end in a result or one clear sentence.

``python -m benchmarks.fuzz --inputs 10000``: shards, tokenizers, checkpoints, foreign checkpoints,
CORE's tasks and archives, configurations and settings from the command line are mutated (bits
flipped, ends cut, pieces moved, numbers and names made absurd) and read. A traceback, a write
outside the run's folder, ten seconds in one file or three gigabytes end it with exit code 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.step import peak_resident
from nanogpt2.config import GPTConfig
from nanogpt2.data.download import unzip
from nanogpt2.data.shards import read_documents, write_shard
from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.errors import explain, run_command
from nanogpt2.evals.core.bundle import load_tasks, published_scores
from nanogpt2.files import read_json, write_json
from nanogpt2.model.gpt import GPT
from nanogpt2.recipes import Recipe, get_recipe, override
from nanogpt2.training.checkpoint import load_model
from nanogpt2.training.storage import MARKER, describe_file, write_tensors

SECONDS = 10
MEMORY = 3_000_000_000
ABSURD = ("-1", "0", "1e308", "NaN", "9223372036854775808", "1" * 5000, "null", "[]", '""', "true")
NAMES = ("../../outside", "/etc/passwd", "a\\u0000b", "\\ud800", "x" * 300)
CONFIG = GPTConfig(sequence_len=16, vocab_size=300, n_layer=2, n_head=2, n_kv_head=2, n_embd=32)


@dataclass
class Figures:
    """What came of the inputs."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    crashes: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)


def mutate(content: bytes, generator: random.Random) -> bytes:
    """``content`` with one to three things wrong."""
    for _ in range(generator.randint(1, 3)):
        content = generator.choice(MUTATIONS)(content, generator)
    return content


def _flip(content: bytes, g: random.Random) -> bytes:
    at = g.randrange(len(content) + 1)
    flipped = bytes(b ^ 1 << g.randrange(8) for b in content[at : at + 1])
    return content[:at] + flipped + content[at + 1 :]


def _cut(content: bytes, g: random.Random) -> bytes:
    return content[: g.randrange(len(content) + 1)]


def _splice(content: bytes, g: random.Random) -> bytes:
    a, b, at = sorted(g.randrange(len(content) + 1) for _ in range(3))
    return content[:at] + content[a:b] + content[at:]


def _drop(content: bytes, g: random.Random) -> bytes:
    a = g.randrange(len(content) + 1)
    return content[:a] + content[a + g.randint(1, 64) :]


def _noise(content: bytes, g: random.Random) -> bytes:
    a = g.randrange(len(content) + 1)
    return content[:a] + g.randbytes(g.randint(1, 16)) + content[a + 8 :]


def _replace(pattern: bytes, choices: tuple[str, ...]) -> Callable[[bytes, random.Random], bytes]:
    def change(content: bytes, g: random.Random) -> bytes:
        found = list(re.finditer(pattern, content[:100_000]))
        if not found:
            return content
        spot = g.choice(found)
        return content[: spot.start()] + g.choice(choices).encode() + content[spot.end() :]

    return change


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip,
    _cut,
    _splice,
    _drop,
    _noise,
    _replace(rb"-?\d+(\.\d+)?", ABSURD),
    _replace(rb'"[^"\n]{0,80}"', ABSURD),
    _replace(rb'(?<=")[^"\n]{1,80}(?=")', NAMES),
)


def make_seeds(folder: Path) -> None:
    """A whole file of every kind."""
    documents = [f"document {i} of some words" for i in range(50)]
    write_shard(folder / "shard" / "a.parquet", documents, row_group_size=10)
    Tokenizer.train(documents * 9, 290).save(folder / "tokenizer")
    checkpoint = folder / "checkpoint"
    model = GPT(CONFIG)
    write_tensors(checkpoint / "model.safetensors", dict(model.state_dict()), {})
    state = {"step": 1, "world_size": 1, "model": CONFIG.to_dict(), "recipe": {}, "progress": {}}
    write_json(checkpoint / "state.json", state)
    names = ("model.safetensors", "state.json")
    write_json(checkpoint / MARKER, {"files": {n: describe_file(checkpoint / n) for n in names}})
    foreign = folder / "nanochat"
    foreign.mkdir()
    torch.save({k: v for k, v in model.state_dict().items()}, foreign / "model_000001.pt")
    write_json(foreign / "meta_000001.json", {"step": 1, "model_config": CONFIG.to_dict()})
    make_bundle(folder / "bundle")
    (folder / "archive").mkdir()
    with zipfile.ZipFile(folder / "archive" / "a.zip", "w") as archive:
        for name in ("tasks/core.yaml", "tasks/data/a.jsonl", "b"):
            archive.writestr(name, f"content of {name} " * 9)
    write_json(folder / "config" / "model.json", CONFIG.to_dict())
    write_json(folder / "config" / "recipe.json", get_recipe("run1").to_dict())
    settings = ["muon.lr=0.02", "depth=4", "window_pattern=SL", "wte.betas=0.9,0.99", "qk_norm=on"]
    (folder / "settings").mkdir()
    (folder / "settings" / "set.txt").write_text("\n".join(settings))


def make_bundle(folder: Path) -> None:
    """One task of each kind in CORE's layout."""
    kinds = {
        "multiple_choice": {"query": "Q?", "choices": ["a", "b"], "gold": 1},
        "schema": {"context_options": ["A is", "B is"], "continuation": "so", "gold": 0},
        "language_modeling": {"context": "one two", "continuation": "three"},
    }
    entries = "icl_tasks:\n"
    rows = "Eval Task,Task Category,Task Type,#shots,#datapoints,Random baseline\n"
    for kind, item in kinds.items():
        entries += (
            f"- label: {kind}\n  dataset_uri: {kind}.jsonl\n  num_fewshot: [1]\n"
            f"  icl_task_type: {kind}\n  continuation_delimiter: ' '\n"
        )
        rows += f"{kind},a,b,1,3,50\n"
        path = folder / "eval_data" / f"{kind}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(item) + "\n" for _ in range(3)))
    (folder / "core.yaml").write_text(entries)
    (folder / "eval_meta_data.csv").write_text(rows)
    (folder / "openai-community-gpt2.csv").write_text("Task,Accuracy,Centered\nschema,0.5,0.0\n")


def remark(folder: Path) -> None:
    """A marker that fits the damaged files: the damage must be found by who reads them."""
    names = [p.name for p in folder.iterdir() if p.name != MARKER]
    write_json(folder / MARKER, {"files": {name: describe_file(folder / name) for name in names}})


def read_configuration(folder: Path) -> None:
    """Configuration and recipe from JSON."""
    GPTConfig.from_dict(read_json(folder / "model.json"))
    Recipe.from_dict(read_json(folder / "recipe.json"))


def read_settings(folder: Path) -> None:
    """``--set`` lines."""
    text = (folder / "set.txt").read_bytes().decode(errors="surrogateescape")
    for line in text.splitlines():
        name, _, value = line.partition("=")
        override(get_recipe("laptop"), {name: value})


def read_bundle(folder: Path) -> None:
    """Tasks and published scores."""
    load_tasks(folder)
    published_scores(folder)


READERS: dict[str, Callable[[Path], Any]] = {
    "shard": lambda folder: list(read_documents(folder / "a.parquet")),
    "tokenizer": lambda folder: Tokenizer.load(folder).encode("a word of 12"),
    "checkpoint": load_model,
    "nanochat": load_model,
    "bundle": read_bundle,
    "archive": lambda folder: unzip(folder / "a.zip", folder / "out", 100_000),
    "config": read_configuration,
    "settings": read_settings,
}
"""kind -> what reads a folder of it"""


@contextmanager
def guarded(allowed: Path, figures: Figures) -> Iterator[None]:
    """Note every file opened for writing outside ``allowed``."""
    active = True
    inside = os.path.realpath(allowed)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not active or event != "open" or not isinstance(arguments[0], (str, bytes, os.PathLike)):
            return
        path, mode, flags = arguments
        writes = any(c in str(mode or "") for c in "wax+")
        writes = writes or bool((flags or 0) & (os.O_WRONLY | os.O_RDWR))
        if writes and not os.path.realpath(os.fsdecode(path)).startswith((inside, "/dev/")):
            figures.outside.append(str(path))

    sys.addaudithook(hook)  # cannot be taken back, only silenced
    try:
        yield
    finally:
        active = False


def _too_long(*_: Any) -> None:
    raise TimeoutError(f"more than {SECONDS} s in one file")


def measure(inputs: int = 10_000, seed: int = 0) -> Figures:
    """Read ``inputs`` mutated files, the kinds in turn."""
    figures, generator = Figures(), random.Random(seed)
    torch.set_num_threads(1)
    previous = signal.signal(signal.SIGALRM, _too_long)
    with tempfile.TemporaryDirectory() as name:
        seeds, work = Path(name) / "seeds", Path(name) / "work"
        make_seeds(seeds)
        for kind, reader in READERS.items():  # undamaged, all are read
            reader(shutil.copytree(seeds / kind, work / kind))
        with guarded(Path(name), figures):
            for i in range(inputs):
                kind = list(READERS)[i % len(READERS)]
                figures.outcomes[kind, _one(kind, seeds / kind, work, generator, figures)] += 1
    signal.signal(signal.SIGALRM, previous)
    return figures


def _one(kind: str, seed: Path, work: Path, generator: random.Random, figures: Figures) -> str:
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(seed, work)
    victim = generator.choice(sorted(p for p in work.rglob("*") if p.is_file()))
    content = mutate(victim.read_bytes(), generator)
    victim.write_bytes(content)
    if kind == "checkpoint" and victim.name != MARKER and generator.random() < 0.8:
        remark(work)
    signal.alarm(SECONDS)
    try:
        READERS[kind](work)
        return "read"
    except Exception as error:
        if explain(error) is not None:
            return "refused"
        digest = hashlib.sha256(content).hexdigest()[:12]
        figures.crashes.append(f"{kind} {victim.name} {digest}\n{traceback.format_exc(limit=-4)}")
        return "crashed"
    finally:
        signal.alarm(0)


def main() -> int:
    """Print the table; 1 where a reader crashed, wrote outside, or took too much."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    figures = measure(options.inputs, options.seed)
    table = Table(title=f"{options.inputs:,} damaged inputs")
    for heading in ("reader", "read", "refused", "crashed"):
        table.add_column(heading, justify="left" if heading == "reader" else "right")
    for kind in READERS:
        counts = [figures.outcomes[kind, how] for how in ("read", "refused", "crashed")]
        table.add_row(kind, *(f"{n:,}" for n in counts))
    Console().print(table)
    for crash in {text.partition("\n")[2]: text for text in figures.crashes}.values():
        print(crash)
    peak = peak_resident()
    print(f"writes outside: {len(figures.outside)}; peak memory {peak / 1e9:.2f} GB")
    return int(bool(figures.crashes or figures.outside) or peak > MEMORY)


if __name__ == "__main__":
    run_command(main)
