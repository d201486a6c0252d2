"""What the fuzz run damages, a whole folder of each kind, and what reads it."""

from __future__ import annotations

import json
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from nanogpt2.asked import asked_for, parser
from nanogpt2.config import GPTConfig
from nanogpt2.data.download import unzip
from nanogpt2.data.loader import TokenLoader
from nanogpt2.data.shards import read_documents, write_shard
from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.depth import dial
from nanogpt2.evals.core.bundle import load_tasks, published_scores
from nanogpt2.evals.during import Questions
from nanogpt2.files import read_json, write_json
from nanogpt2.folder import claimed
from nanogpt2.model.gpt import GPT
from nanogpt2.planning import Plan
from nanogpt2.recipes import Recipe, get_recipe
from nanogpt2.reporting.report import write_report
from nanogpt2.run import Run
from nanogpt2.settings import override
from nanogpt2.speedrun import record
from nanogpt2.stamps import Stamps
from nanogpt2.training.checkpoint import MARKER, describe_file, write_tensors
from nanogpt2.training.loading import load_model
from nanogpt2.training.ranks import join
from nanogpt2.training.start import Start
from nanogpt2.training.trainer import Trainer, train
from tests.drills.mutations import mutate
from tests.drills.tiny_run import TinyData, prepare

Act = Callable[[], Any]
Kind = Callable[[Path, Path, random.Random], Act]
"""(seeds, an empty folder to fill, what to draw from) -> what is to end well or in a sentence"""

CONFIG = GPTConfig(sequence_len=16, vocab_size=300, n_layer=2, n_head=2, n_kv_head=2, n_embd=32)
STEPS: dict[str, Any] = {"steps": 2, "checkpoint_every": 1, "eval_every": -1}


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
    mark(checkpoint)
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
    make_run(folder / "run")
    make_unfinished(folder / "resume")
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
    entries = []
    rows = "Eval Task,Task Category,Task Type,#shots,#datapoints,Random baseline\n"
    for kind, item in kinds.items():
        entry = {"label": kind, "dataset_uri": f"{kind}.jsonl", "num_fewshot": [1]}
        entries.append(entry | {"icl_task_type": kind, "continuation_delimiter": " "})
        rows += f"{kind},a,b,1,3,50\n"
        path = folder / "eval_data" / f"{kind}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(item) + "\n" for _ in range(3)))
    write_json(folder / "core.yaml", {"icl_tasks": entries})  # all JSON is YAML
    (folder / "eval_meta_data.csv").write_text(rows)
    (folder / "openai-community-gpt2.csv").write_text("Task,Accuracy,Centered\nschema,0.5,0.0\n")


def make_run(folder: Path) -> None:
    """What a speedrun leaves for --resume and for its report."""
    run, _ = resolve(["--recipe", "laptop", "--out", str(folder), "--cpu-ranks", "1"])
    write_json(folder / "config.json", record(run, "command", {"cpu": "of some kind"}))
    lines = [{"step": i, "loss": 5.0 - i, "lr": 1.0, "tokens_per_second": 9.5} for i in (1, 2, 3)]
    lines[-1]["val_bpb"] = 1.5
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_json(folder / "training.json", {"step": 3, "steps": 3, "tokens": 99, "seconds": 1.5})
    write_json(folder / "evaluation.json", {"val_bpb": 1.5, "tokens": 1000})
    write_json(folder / "samples.json", [{"prompt": "Water", "text": " is wet"}])
    Stamps(folder).write("evaluate", [1, "a"], [folder / "evaluation.json"])


def resolve(arguments: list[str]) -> tuple[Run, Plan]:
    """A speedrun's command line, as the command reads it."""
    return asked_for(parser().parse_args(arguments))


def make_unfinished(folder: Path) -> None:
    """A checkpoint after the first of two steps, with the run's data and tokenizer."""
    settings = prepare(folder).settings(folder / "run", **STEPS)
    train(settings, on_message=lambda line: None)
    (folder / "run" / "checkpoints" / "step_000001").rename(folder / "checkpoint")
    shutil.rmtree(folder / "run")


def mark(folder: Path) -> None:
    """A marker that fits the files: damage must be found by who reads them."""
    names = [p.name for p in folder.iterdir() if p.name != MARKER]
    write_json(folder / MARKER, {"files": {name: describe_file(folder / name) for name in names}})


def read_configuration(folder: Path) -> None:
    """Configuration and recipe from JSON."""
    GPTConfig.from_dict(read_json(folder / "model.json"))
    Recipe.from_dict(read_json(folder / "recipe.json"))


def read_settings(folder: Path) -> None:
    """``--set`` lines, and what follows from them."""
    recipe = get_recipe("laptop")
    text = (folder / "set.txt").read_bytes().decode(errors="surrogateescape")
    for line in text.splitlines():
        name, _, value = line.partition("=")
        recipe = override(recipe, {name: value})
    dial(None, recipe)


def read_bundle(folder: Path) -> None:
    """Tasks and published scores."""
    load_tasks(folder)
    published_scores(folder)


def read_run(folder: Path) -> None:
    """Its stages, its report, and its settings as --resume takes them."""
    Stamps(folder).valid("evaluate", [1, "a"])
    write_report(folder)
    resolve(["--resume", "--out", str(folder), "--cpu-ranks", "1"])


def read_unfinished(folder: Path) -> None:
    """Continue as the trainer does, up to the first batch."""
    data = TinyData(folder / "data", folder / "tokenizer")
    settings = data.settings(folder / "run", resume_from=folder / "checkpoint", **STEPS)
    trainer, start = begin_training(settings)
    next(iter(TokenLoader(data.data_dir, trainer.tokenizer, 4, 32, state=start.data)))


def begin_training(settings: Run) -> tuple[Trainer, Start]:
    """What ``train`` does before its first step."""
    with join("cpu") as ranks, claimed(settings.out):
        trainer = Trainer(settings, ranks, Questions, None, lambda line: None)
        return trainer, trainer.find_start()


READERS: dict[str, Callable[[Path], Any]] = {
    "shard": lambda folder: list(read_documents(folder / "a.parquet")),
    "tokenizer": lambda folder: Tokenizer.load(folder).encode("a word of 12"),
    "checkpoint": load_model,
    "resume": read_unfinished,
    "nanochat": load_model,
    "bundle": read_bundle,
    "archive": lambda folder: unzip(folder / "a.zip", folder / "out", 100_000),
    "config": read_configuration,
    "run": read_run,
    "settings": read_settings,
}
"""kind -> what reads a folder of it"""


def damaged(name: str) -> Kind:
    """The kind of input that is a seed with one of its files mutated."""

    def make(seeds: Path, work: Path, generator: random.Random) -> Act:
        shutil.copytree(seeds / name, work, dirs_exist_ok=True)
        victim = generator.choice(sorted(p for p in work.rglob("*") if p.is_file()))
        victim.write_bytes(mutate(victim.read_bytes(), generator))
        if victim.name != MARKER and generator.random() < 0.8:
            for marker in work.rglob(MARKER):
                mark(marker.parent)
        return lambda: READERS[name](work)

    return make
