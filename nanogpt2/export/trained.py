"""What an export is made from: the model, its tokenizer, and how far it was trained.

Chapter: speedrun.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.errors import UserError
from nanogpt2.model.gpt import GPT
from nanogpt2.reporting.run import Run, load_run
from nanogpt2.training.checkpoint import FOR_A_MODEL, find_checkpoint, read_state
from nanogpt2.training.loading import find_tokenizer, load_model
from nanogpt2.training.nanochat import is_nanochat, newest


@dataclass(frozen=True)
class Trained:
    """A model that has left its training."""

    checkpoint: Path
    """the folder that was named: a run's or a checkpoint's"""
    model: GPT
    """on the processor, in fp32"""
    tokenizer: Tokenizer
    step: int = 0
    """steps of its training"""

    @cached_property
    def run(self) -> Run | None:
        """The record of the run that it comes from; None of a checkpoint that lies alone."""
        for folder in (self.checkpoint, *self.checkpoint.absolute().parents[:2]):
            if (folder / "config.json").is_file() and (folder / "metrics.jsonl").is_file():
                return load_run(folder)
        return None


def load_trained(
    checkpoint: Path, tokenizer: Path | None = None, recipe: str | None = None
) -> Trained:
    """Everything in ``checkpoint``, resolved as by the other commands; UserError as there.

    ``recipe``: whose switches nanochat's model has, where its files do not say.
    """
    if is_nanochat(checkpoint):
        step = newest(checkpoint)[0]
    elif recipe:
        raise UserError(f"{checkpoint} says itself what its model is; leave out --recipe")
    else:
        step = read_state(find_checkpoint(checkpoint, FOR_A_MODEL))["step"]
    model = load_model(checkpoint, recipe=recipe)
    own = find_tokenizer(checkpoint, tokenizer)
    if own.vocab_size > model.config.vocab_size:
        raise UserError(
            f"the tokenizer has {own.vocab_size} tokens and the model {model.config.vocab_size}; "
            "name the tokenizer that the model was trained with (--tokenizer)"
        )
    return Trained(checkpoint, model, own, step)
