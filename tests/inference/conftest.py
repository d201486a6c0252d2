"""Tiny models whose every part counts: nothing is left at a start value of zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from nanogpt2.config import GPTConfig
from nanogpt2.model.gpt import GPT
from nanogpt2.recipes import RECIPES

SIZES = {
    "sequence_len": 24,
    "vocab_size": 61,
    "n_layer": 4,
    "n_head": 4,
    "n_kv_head": 4,
    "n_embd": 32,
    "value_gate_channels": 8,
    "smear_channels": 6,
    "short_window_multiple": 1,
}


def build(config: GPTConfig, dtype: torch.dtype = torch.float64) -> GPT:
    """A model of random weights, also where training starts at zero."""
    model = GPT(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    model.compute_dtype = dtype
    return model.eval()


def small(name: str, **sizes: int) -> GPTConfig:
    """A recipe's switches at tiny sizes (``gpt2``: all of them off)."""
    if name == "gpt2":
        own = {k: v for k, v in SIZES.items() if k not in {"smear_channels", "n_kv_head"}}
        return GPTConfig.gpt2(**{**own, **sizes})
    return replace(RECIPES[name].model, **{**SIZES, **sizes})


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., GPT]:
    """``tiny_model("run6", n_kv_head=2)``."""
    made: dict[tuple, GPT] = {}

    def make(name: str, dtype: torch.dtype = torch.float64, **sizes: int) -> GPT:
        key = (name, dtype, *sorted(sizes.items()))
        if key not in made:
            made[key] = build(small(name, **sizes), dtype)
        return made[key]

    return make
