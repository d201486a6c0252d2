"""``small_run``: a small model trained on the embedded corpus in seconds, once for all chapters.

The trainer's own model, optimizer and schedules, with the simplest of loops around them; results
are kept on disk under a hash of everything that decides them, the code included.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import Tensor

from nanogpt2.config import GPTConfig
from nanogpt2.files import atomic_directory, read_json, write_json
from nanogpt2.kernels.precision import good_at_bf16
from nanogpt2.lab.records import digest
from nanogpt2.lab.small_data import SmallData, cache_folder, code_hash, small_data
from nanogpt2.model.gpt import GPT
from nanogpt2.optim import build_optimizer
from nanogpt2.optim.schedules import apply_schedules
from nanogpt2.recipes import LAPTOP, Recipe

Probe = Callable[[GPT, int], Mapping[str, float]]
CODE = ("config.py", "recipes.py", "data", "kernels", "model", "optim", "lab/small_run.py")
VAL_ROWS = 64


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
        model.load_state_dict(load_file(self.folder / "model.safetensors"))
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
            source is part of the cache's key.
        within: makes a context manager around the whole run, to change the code for its time (to
            show a failure, say). Its source is part of the cache's key.
        start: begin with the weights of that run instead of fresh ones.
        dtype: of the products; None takes bf16 where the device is good at it, else fp32.
        threads: of the processor; one is best for a small model, and chapters run side by side.
    """
    config, recipe = config or small_config(), recipe or small_recipe()
    if dtype is None:
        dtype = torch.bfloat16 if good_at_bf16(device) else torch.float32
    every = evaluate_every or max(1, steps // 12)
    settings = {
        "config": config.to_dict(),
        "recipe": recipe.to_dict(),
        "steps": steps,
        "batch_size": batch_size,
        "seed": seed,
        "lr_scale": lr_scale,
        "evaluate_every": every,
        "val_rows": val_rows,
        "probe": _source(probe),
        "within": _source(within),
        "start": start.folder.name if start else "",
        "device": torch.device(device).type,
        "dtype": str(dtype),
        "torch": torch.__version__,
        "code": code_hash(*CODE),
    }
    folder = cache_folder() / f"run-{digest(json.loads(json.dumps(settings)))[:20]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(str(folder) + ".lock"):
        cached = (folder / "run.json").is_file()
        if not cached:
            data = small_data(config.vocab_size)
            around = within() if within else nullcontext()
            with around, _torch_threads(threads), atomic_directory(folder) as temporary:
                model = _new_model(config, seed, device, dtype, start)
                loop = _Loop(model, recipe, data, steps, batch_size, seed, lr_scale)
                result = {"settings": settings, "curve": loop.train(every, val_rows, probe)}
                write_json(temporary / "run.json", {**result, "seconds": loop.seconds})
                save_file(model.state_dict(), temporary / "model.safetensors")
    found = read_json(folder / "run.json")
    return SmallRun(
        config, recipe, seed, steps, batch_size, found["curve"], found["seconds"], folder, cached
    )


def small_runs(
    config: GPTConfig | None = None, seeds: Sequence[int] = (0, 1, 2), **settings: Any
) -> list[SmallRun]:
    """The same run once for each seed."""
    return [small_run(config, seed=seed, **settings) for seed in seeds]


@torch.no_grad()
def bits_per_byte(model: GPT, data: SmallData, rows: int = VAL_ROWS, length: int = 0) -> float:
    """Held-out bits per byte over ``rows`` rows of ``length`` tokens (T by default).

    Nats of the targets that are not special tokens, over ln 2 times their bytes.
    """
    inputs, targets = data.validation(rows, length or model.config.sequence_len)
    sizes = torch.as_tensor(data.tokenizer.token_bytes)[targets].flatten()
    pairs = zip(inputs.split(16), targets.split(16), strict=True)
    nats = torch.cat([_nats(model, x, y) for x, y in pairs])
    counted = sizes > 0
    return float(nats[counted].double().sum() / (math.log(2) * sizes[counted].sum()))


def _nats(model: GPT, x: Tensor, y: Tensor) -> Tensor:
    x, y = x.to(model.device), y.to(model.device)
    return model(x, y, loss_reduction="none").float().cpu()


class _Loop:
    """Draw rows, one forward and backward pass, one optimizer step; now and then evaluate."""

    def __init__(
        self,
        model: GPT,
        recipe: Recipe,
        data: SmallData,
        steps: int,
        batch_size: int,
        seed: int,
        lr_scale: float,
    ) -> None:
        self.model, self.recipe, self.data = model, recipe, data
        self.steps, self.batch_size, self.seed = steps, batch_size, seed
        self.optimizer = build_optimizer(
            model, recipe, lr_scale=lr_scale, weight_decay=recipe.muon.weight_decay
        )
        self.seconds = 0.0
        self.losses: list[float] = []

    def train(self, every: int, rows: int, probe: Probe | None) -> list[dict[str, float]]:
        curve = [self._evaluate(0, rows, probe)]
        for step in range(self.steps):
            started = time.perf_counter()
            self.losses.append(self._step(step))
            self.seconds += time.perf_counter() - started
            if (step + 1) % every == 0 or step + 1 == self.steps:
                curve.append(self._evaluate(step + 1, rows, probe))
        return curve

    def _step(self, step: int) -> float:
        length = self.model.config.sequence_len
        inputs, targets = self.data.batch(step, self.batch_size, length, self.seed)
        inputs, targets = inputs.to(self.model.device), targets.to(self.model.device)
        loss = self.model(inputs, targets)
        loss.backward()
        apply_schedules(self.optimizer, self.recipe, step, self.steps)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    def _evaluate(self, step: int, rows: int, probe: Probe | None) -> dict[str, float]:
        self.model.eval()
        point = {
            "step": step,
            "tokens": step * self.batch_size * self.model.config.sequence_len,
            "seconds": self.seconds,
            "bpb": bits_per_byte(self.model, self.data, rows),
        }
        if self.losses:
            point["loss"] = statistics.fmean(self.losses)
            self.losses = []
        if probe is not None:
            point |= {name: float(value) for name, value in probe(self.model, step).items()}
        self.model.train()
        return point


@contextmanager
def _torch_threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _new_model(
    config: GPTConfig,
    seed: int,
    device: torch.device | str,
    dtype: torch.dtype,
    start: SmallRun | None,
) -> GPT:
    model = GPT(config).to(device)
    model.init_weights(seed)
    if start is not None:
        model.load_state_dict(load_file(start.folder / "model.safetensors"))
    model.compute_dtype = dtype
    return model


def _source(function: Callable[..., Any] | None) -> str:
    if function is None:
        return ""
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):
        text = repr(function)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Comparison:
    """Two sets of runs, one number a run."""

    difference: float
    """mean of the first minus mean of the second"""
    spread: float
    """the larger of the two ranges over seeds"""
    distinguishable: bool
    """False where the two ranges overlap, or a side has a single seed"""

    def __str__(self) -> str:
        if not self.distinguishable:
            return f"not distinguishable ({self.difference:+.4f}, seeds spread {self.spread:.4f})"
        return f"{self.difference:+.4f} (seeds spread {self.spread:.4f})"


def compare(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """Whether the values of two sets of seeds differ at all, and by how much."""
    overlap = max(first) >= min(second) and max(second) >= min(first)
    spread = max(max(first) - min(first), max(second) - min(second))
    alone = min(len(first), len(second)) < 2
    difference = statistics.fmean(first) - statistics.fmean(second)
    return Comparison(difference, spread, not (overlap or alone))


def as_record(run: SmallRun) -> dict[str, Any]:
    """Keyword arguments for ``record``: configuration, seed, tokens, seconds and curve."""
    configuration = {
        "config": run.config.to_dict(),
        "recipe": {**run.recipe.to_dict(), "record": None},
        "steps": run.steps,
        "batch_size": run.batch_size,
    }
    return {
        "configuration": json.loads(json.dumps(configuration)),
        "seed": run.seed,
        "tokens": run.tokens,
        "seconds": run.seconds,
        "curve": run.curve,
    }
