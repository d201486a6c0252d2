"""Tokens per second of reading a prompt and of writing after it, with the cache and without.

python -m benchmarks.decode [--depth 12] [--json]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from nanogpt2.depth import dial
from nanogpt2.errors import run_command
from nanogpt2.inference.generation import generate_steps, prefill
from nanogpt2.inference.kv_cache import KVCache, cache_bytes
from nanogpt2.kernels.precision import good_at_bf16
from nanogpt2.model.gpt import GPT


def build(depth: int, recipe: str, device: str) -> GPT:
    """The recipe's model at ``depth`` with start values: speed does not depend on training."""
    model = GPT(dial(depth, recipe).model).to(device).eval()
    if good_at_bf16(device):
        model.compute_dtype = torch.bfloat16
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.data = parameter.data.bfloat16()
    return model


def seconds(action: Callable[[], Any], repeats: int = 3) -> float:
    """The best of ``repeats`` runs, after one that does not count."""
    best = float("inf")
    for repeat in range(repeats + 1):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        start = time.perf_counter()
        action()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if repeat:
            best = min(best, time.perf_counter() - start)
    return best


@torch.inference_mode()
def without_cache(model: GPT, prompts: list[list[int]], new_tokens: int) -> None:
    """The whole text through the model for every token."""
    texts = torch.tensor(prompts, device=model.device)
    for _ in range(new_tokens):
        logits = model.logits(model.hidden(texts)[:, -1:])
        texts = torch.cat((texts, logits.argmax(dim=-1)), dim=1)


def decode_seconds(model: GPT, prompts: list[list[int]], new_tokens: int) -> float:
    """Seconds of ``new_tokens`` cached steps, the prompt not counted."""
    steps = generate_steps(model, prompts, new_tokens + 2, temperature=0)
    next(steps), next(steps)  # prefill, and a first step that warms up
    start = time.perf_counter()
    for _ in range(new_tokens):
        next(steps)  # waits for the tokens, so the device is done
    elapsed = time.perf_counter() - start
    steps.close()
    return elapsed


def measure(
    depth: int = 12,
    recipe: str = "run1",
    prompt_tokens: int = 1024,
    new_tokens: int = 32,
    batches: tuple[int, ...] = (1, 8),
    device: str | None = None,
) -> list[dict[str, Any]]:
    """Rows of part, what, value, unit."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = build(depth, recipe, device)
    generator = torch.Generator().manual_seed(0)
    shape = (max(batches), prompt_tokens)
    texts = torch.randint(model.config.vocab_size, shape, generator=generator).tolist()
    label = f"{recipe} d{depth}, {str(model.compute_dtype).removeprefix('torch.')}"
    rows: list[dict[str, Any]] = []

    def row(what: str, value: float, unit: str) -> None:
        rows.append({"part": "decode", "what": f"{what} ({label})", "value": value, "unit": unit})

    def read() -> None:
        cache = KVCache(model.config, 1, prompt_tokens, model.device)
        prefill(model, cache, texts[0])

    row(f"prefill, {prompt_tokens} tokens", prompt_tokens / seconds(read), "tokens/s")
    speeds = {}
    for batch in batches:
        speeds[batch] = batch * new_tokens / decode_seconds(model, texts[:batch], new_tokens)
        row(f"with cache, batch {batch}, at {prompt_tokens}", speeds[batch], "tokens/s")
    few = 2
    plain = few / seconds(lambda: without_cache(model, texts[:1], few), repeats=2)
    row(f"without cache, batch 1, at {prompt_tokens}", plain, "tokens/s")
    if 1 in speeds:
        row(f"cache against none, batch 1, at {prompt_tokens}", speeds[1] / plain, "x")
    width = torch.finfo(model.compute_dtype).bits // 8
    context = model.config.sequence_len
    held = cache_bytes(model.config, 1, context, width)
    full = cache_bytes(replace(model.config, window_pattern="L"), 1, context, width)
    row(f"cache of {context} tokens", held / 2**20, "MiB")
    row(f"cache of {context} tokens, were all windows full", full / 2**20, "MiB")
    return rows


def main() -> None:
    """Print the rows as a table, or as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode", description=__doc__)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--recipe", default="run1")
    parser.add_argument("--prompt-tokens", type=int, default=1024)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = vars(parser.parse_args())
    as_json, arguments["batches"] = arguments.pop("json"), tuple(arguments["batches"])
    rows = measure(**arguments)
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        for row in rows:
            print(f"{row['what']:<70}{row['value']:>12,.1f} {row['unit']}")


if __name__ == "__main__":
    run_command(main)
