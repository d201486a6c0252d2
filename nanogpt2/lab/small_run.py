"""``small_run``: a small model trained on the embedded corpus in seconds, once for all chapters.

The trainer's own model, optimizer, schedules and loop, on rows drawn at random; results
are kept on disk under a hash of everything that decides them, the code included.
"""

from __future__ import annotations

import inspect
import json
import math
import pickle
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors.torch import load_file

from nanogpt2.config import GPTConfig
from nanogpt2.data.corpus import versions
from nanogpt2.evals import bits_per_byte as evals
from nanogpt2.files import atomic_directory, read_json, write_json
from nanogpt2.kernels.precision import good_at_bf16
from nanogpt2.lab.records import digest
from nanogpt2.lab.small_data import SmallData, cache_folder, code_hash, small_data
from nanogpt2.lab.timing import torch_threads
from nanogpt2.model.gpt import GPT
from nanogpt2.optim import build_optimizer
from nanogpt2.recipes import LAPTOP, Recipe
from nanogpt2.training.checkpoint import write_tensors
from nanogpt2.training.fit import Point, every, fit

Probe = Callable[[GPT, int], Mapping[str, float]]
CODE = (
    "config.py",
    "recipes.py",
    "data",
    "kernels",
    "model",
    "optim",
    "evals/bits_per_byte.py",
    "training/fit.py",
    "lab/small_data.py",
    "lab/small_run.py",
)
VAL_ROWS, WEIGHTS = 64, "model.safetensors"


@dataclass(frozen=True)
class SmallRun:
    """A finished small run."""

    config: GPTConfig = field(repr=False)
    recipe: Recipe = field(repr=False)
    seed: int
    steps: int
    batch_size: int
    curve: list[dict[str, float]] = field(repr=False)
    """at every evaluation: step, tokens, loss (training, nats per token), bpb (held-out bits per
    byte), seconds (of training alone), and what the probe measured"""
    seconds: float
    """of training, evaluations left out"""
    folder: Path = field(repr=False)
    cached: bool
    """whether this call found the run on disk"""

    @property
    def bpb(self) -> float:
        """Held-out bits per byte at the end."""
        return self.curve[-1]["bpb"]

    @property
    def tokens(self) -> int:
        """Trained on."""
        return self.steps * self.batch_size * self.config.sequence_len

    def series(self, name: str) -> list[float]:
        """One quantity of the curve, in order of steps."""
        return [point[name] for point in self.curve if name in point]

    def model(self, device: torch.device | str = "cpu") -> GPT:
        """The trained model, ready to evaluate."""
        model = GPT(self.config)
        model.load_state_dict(load_file(self.folder / WEIGHTS))
        return model.to(device).eval()


def small_config(depth: int = 4, **switches: Any) -> GPTConfig:
    """The book's small model: run 1's switches, width 24 a layer, heads of 32, T 128, V 2048.

    ``switches`` are fields of ``GPTConfig``; depth 4 has 0.44 million matrix parameters.
    From depth 12 on, the record runs' proportions are taken: width 64 a layer, heads of 128.
    """
    aspect, head_dim = (64, 128) if depth >= 12 else (24, 32)
    width = math.ceil(depth * aspect / head_dim) * head_dim
    sizes: dict[str, Any] = {
        "sequence_len": 128,
        "vocab_size": 2048,
        "n_layer": depth,
        "n_embd": width,
        "n_head": width // head_dim,
        "n_kv_head": width // head_dim,
    }
    return GPTConfig(**{**sizes, **switches})


def small_recipe(**changes: Any) -> Recipe:
    """The laptop recipe with fields changed: who updates the matrices, rates, schedules."""
    base = replace(LAPTOP, muon=replace(LAPTOP.muon, weight_decay=0.1), warmdown_ratio=0.4)
    return replace(base, **changes)


def small_run(
    config: GPTConfig | None = None,
    *,
    recipe: Recipe | None = None,
    steps: int = 100,
    batch_size: int = 8,
    seed: int = 0,
    lr_scale: float = 1.0,
    evaluate_every: int | None = None,
    val_rows: int = VAL_ROWS,
    probe: Probe | None = None,
    within: Callable[[], AbstractContextManager[Any]] | None = None,
    start: SmallRun | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    threads: int = 1,
) -> SmallRun:
    """Train ``config`` for ``steps`` steps on the embedded corpus, or find that run on disk.

    Args:
        config: the model; ``small_config()`` by default.
        recipe: optimizer and schedules; ``small_recipe()`` by default. Its own model, depth and
            batch are not used.
        batch_size: rows of ``config.sequence_len`` tokens a step.
        seed: of the start values and of the order of rows.
        lr_scale: factor on the learning rates that scale with the batch.
        evaluate_every: steps between evaluations; about twelve evaluations by default.
        val_rows: held-out rows of each evaluation.
        probe: called as probe(model, step) at every evaluation; its numbers join the curve. Its
            source, and what it reads from outside, are part of the cache's key.
        within: makes a context manager around the whole run, to change the code for its time (to
            show a failure, say). In the cache's key like ``probe``.
        start: begin with the weights of that run instead of fresh ones.
        dtype: of the products; None takes bf16 where the device is good at it, else fp32.
        threads: of the processor; one is best for a small model, and chapters run side by side.
    """
    config, recipe = config or small_config(), recipe or small_recipe()
    if dtype is None:
        dtype = torch.bfloat16 if good_at_bf16(device) else torch.float32
    evaluate_every = evaluate_every or max(1, steps // 12)
    settings = {
        "config": config.to_dict(),
        "recipe": recipe.to_dict(),
        "steps": steps,
        "batch_size": batch_size,
        "seed": seed,
        "lr_scale": lr_scale,
        "evaluate_every": evaluate_every,
        "val_rows": val_rows,
        "probe": _source(probe),
        "within": _source(within),
        "start": start.folder.name if start else "",
        "device": torch.device(device).type,
        "dtype": str(dtype),
        "torch": torch.__version__,
        "code": code_hash(*CODE),
        "text": versions(),
    }
    folder = cache_folder() / f"run-{digest(json.loads(json.dumps(settings)))[:20]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(str(folder) + ".lock"):
        cached = (folder / "run.json").is_file()
        if not cached:
            data = small_data(config.vocab_size)
            around = within() if within else nullcontext()
            with around, torch_threads(threads), atomic_directory(folder) as temporary:
                model = GPT(config).to(device)
                model.init_weights(seed)
                if start is not None:
                    model.load_state_dict(load_file(start.folder / WEIGHTS))
                model.compute_dtype = dtype
                optimizer = build_optimizer(model, recipe, lr_scale=lr_scale, dtype=dtype)
                watch = _Watch(model, data, batch_size, val_rows, probe)
                watch.evaluate({"step": 0})
                fit(
                    model,
                    optimizer,
                    (data.batch(s, batch_size, config.sequence_len, seed) for s in count()),
                    steps,
                    recipe,
                    callbacks=(watch.step, every(evaluate_every, watch.evaluate)),
                )
                result = {"settings": settings, "curve": watch.curve, "seconds": watch.seconds}
                write_json(temporary / "run.json", result)
                write_tensors(temporary / WEIGHTS, model.state_dict(), {})
    found = read_json(folder / "run.json")
    return SmallRun(
        config, recipe, seed, steps, batch_size, found["curve"], found["seconds"], folder, cached
    )


def small_runs(
    config: GPTConfig | None = None, seeds: Sequence[int] = (0, 1, 2), **settings: Any
) -> list[SmallRun]:
    """The same run once for each seed."""
    return [small_run(config, seed=seed, **settings) for seed in seeds]


def bits_per_byte(model: GPT, data: SmallData, rows: int = VAL_ROWS, length: int = 0) -> float:
    """Held-out bits per byte over ``rows`` rows of ``length`` tokens (T by default)."""
    inputs, targets = data.validation(rows, length or model.config.sequence_len)
    batches = zip(inputs.split(16), targets.split(16), strict=True)
    return evals.bits_per_byte(model, batches, data.tokenizer.token_bytes)


class _Watch:
    """The seconds of a run, and its curve: a point at the start and at every evaluation."""

    def __init__(
        self, model: GPT, data: SmallData, batch_size: int, rows: int, probe: Probe | None
    ) -> None:
        self.model, self.data, self.batch_size = model, data, batch_size
        self.rows, self.probe = rows, probe
        self.seconds, self.began, self.losses = 0.0, 0.0, list[float]()
        self.curve: list[dict[str, float]] = []

    def step(self, point: Point) -> None:
        """Count its time, which began when the last one had been looked at, and keep its loss."""
        now = time.perf_counter()
        self.seconds, self.began = self.seconds + now - self.began, now
        self.losses.append(point["loss"])

    def evaluate(self, at: Point) -> None:
        """Held-out bits per byte, the mean loss since the last evaluation, what the probe says."""
        step = at["step"]
        self.model.eval()
        point = {
            "step": step,
            "tokens": step * self.batch_size * self.model.config.sequence_len,
            "seconds": self.seconds,
            "bpb": bits_per_byte(self.model, self.data, self.rows),
        }
        if self.losses:
            point["loss"] = statistics.fmean(self.losses)
            self.losses = []
        if self.probe is not None:
            point |= {name: float(value) for name, value in self.probe(self.model, step).items()}
        self.model.train()
        self.curve.append(point)
        self.began = time.perf_counter()


def _source(function: Callable[..., Any] | None) -> str:
    """SHA-256 of a function's source and of what it reads from outside; empty without one."""
    return digest(_told(function, set())) if function is not None else ""


def _told(value: Any, seen: set[int]) -> Any:
    """Plain values are themselves; a function is its source, with what it closes over and calls.

    Another object is its bytes, and its call a function; what has no bytes (a module) is its name.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, (tuple, list)):
        return [_told(each, seen) for each in value]
    value = inspect.unwrap(value)  # a cached function is its function
    if isinstance(value, partial):
        return _told([value.func, value.args, [*value.keywords.items()]], seen)
    if inspect.ismethod(value):
        return _told([value.__func__, value.__self__], seen)
    name = getattr(value, "__qualname__", type(value).__qualname__)
    if id(value) in seen:
        return name
    seen.add(id(value))
    if not inspect.isfunction(value):
        called = inspect.getattr_static(type(value), "__call__", None)
        return [name, _told(called, seen) if inspect.isfunction(called) else "", _bytes(value)]
    outside = inspect.getclosurevars(value)
    names = {**outside.globals, **outside.nonlocals, "": value.__defaults__}
    try:
        text = inspect.getsource(value)
    except (OSError, TypeError):
        text = value.__code__.co_code.hex()
    return [text, {name: _told(names[name], seen) for name in sorted(names)}]


def _bytes(value: Any) -> str:
    """SHA-256 of an object's pickle; empty where it has none."""
    try:
        return sha256(pickle.dumps(value)).hexdigest()
    except Exception:  # each kind of object has an error of its own
        return ""
