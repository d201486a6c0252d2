"""What an export is made from: the model, its tokenizer, and the record of its run.

Chapter: speedrun.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.model.gpt import GPT
from nanogpt2.training.loading import find_tokenizer, load_model


@dataclass(frozen=True)
class Trained:
    """A model that has left its training."""

    checkpoint: Path
    """the folder that was named: a run's or a checkpoint's"""
    model: GPT
    """on the processor, its parameters as they were saved"""
    tokenizer: Tokenizer


def load_trained(checkpoint: Path, tokenizer: Path | None = None) -> Trained:
    """Everything in ``checkpoint``, resolved as by the other commands; UserError as there."""
    return Trained(checkpoint, load_model(checkpoint), find_tokenizer(checkpoint, tokenizer))
