"""From a folder to a model that can be asked, and its tokenizer: ours, and nanochat's checkpoints.

Nothing is unpickled: safetensors and JSON, and ``weights_only=True`` for nanochat's files. What is
read is hashed, once, and by one rank: the model, and not the optimizer's gigabytes. Chapter: loop.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nanogpt2.config import GPTConfig
from nanogpt2.depth import parameter_counts
from nanogpt2.errors import UserError
from nanogpt2.model.gpt import GPT
from nanogpt2.training.checkpoint import (
    CURE,
    FOR_A_MODEL,
    STATE_FILE,
    damaged,
    find_checkpoint,
    learned,
    read_model,
    read_state,
)
from nanogpt2.training.nanochat import is_nanochat, read_nanochat
from nanogpt2.training.ranks import ALONE, Ranks

LONGEST_SEQUENCE = 1 << 20
"""a configuration read from a file may not ask for more (its rotary tables grow with it)"""


def load_model(
    path: Path | str,
    device: str | torch.device = "cpu",
    ranks: Ranks = ALONE,
    recipe: str | None = None,
) -> GPT:
    """The model of a run or a checkpoint, in evaluation mode, products in fp32.

    Args:
        path: a run's folder (its newest whole checkpoint is taken), a checkpoint's folder, or a
            nanochat checkpoint (its folder, or one ``model_XXXXXX.pt``).
        device: where to put it.
        ranks: those that all load it now; the first one verifies, and the others wait for its word.
        recipe: whose switches a nanochat model has, where its tensors leave it open (run 4's).

    Raises:
        UserError: nothing there to load, or it is damaged.
    """
    source, cure = Path(path), "fetch it again"
    foreign = is_nanochat(source)
    if not foreign:
        found = ranks.share(lambda: str(find_checkpoint(Path(path), FOR_A_MODEL)))
        source, cure = Path(found), CURE
    with damaged(source, cure):
        config, weights = read_nanochat(source, recipe) if foreign else read_model(source)
        _require_fit(config, weights)
    with torch.device(device):
        model = GPT(config)
    with damaged(source, cure):
        model.load_state_dict(weights)
    return model.eval()


def _require_fit(config: GPTConfig, weights: dict[str, Tensor]) -> None:
    """Refuse a configuration that the file's tensors do not bear out, before memory is taken."""
    of_two = "model and configuration are not of one checkpoint"
    layers = sum(name.endswith(".attn.c_q.weight") for name in weights)
    if config.n_layer != layers:
        raise UserError(
            f"it has {layers} layers and its configuration says {config.n_layer}; {of_two}"
        )
    size, said = sum(t.numel() for t in weights.values()), parameter_counts(config)["total"]
    if said != size:
        raise UserError(f"it has {size:,} parameters, its configuration gives {said:,}; {of_two}")
    if config.sequence_len > LONGEST_SEQUENCE:
        raise UserError(f"it asks for a context of {config.sequence_len:,} tokens")


def find_tokenizer_folder(path: Path | str) -> Path:
    """Folder ``tokenizer/`` of the run that ``path`` (a run, or a checkpoint in it) belongs to."""
    path = Path(path)
    for folder in (path, *path.absolute().parents[:3]):
        if (folder / "tokenizer").is_dir():
            return folder / "tokenizer"
    raise UserError(
        f"there is no folder tokenizer/ in {path} or above it; name the tokenizer's (--tokenizer)"
    )


def find_tokenizer(path: Path | str, folder: Path | str | None = None) -> Any:
    """The tokenizer that a run's or a checkpoint's model was trained with.

    ``folder`` names where it lies, if not in the run. Raises UserError where it is missing, or is
    not the model's own: with another one it would read and write gibberish.
    """
    from nanogpt2.data.tokenizer import Tokenizer  # needs tiktoken, which a checkpoint does not

    folder, path = Path(folder or find_tokenizer_folder(path)), Path(path)
    tokenizer = Tokenizer.load(folder)
    state = read_state(path) if (path / STATE_FILE).is_file() else learned(path)
    if state and state.get("tokenizer", tokenizer.digest) != tokenizer.digest:
        raise UserError(
            f"the model in {path} was trained with another tokenizer than that in {folder}; "
            "name its own (--tokenizer)"
        )
    return tokenizer
