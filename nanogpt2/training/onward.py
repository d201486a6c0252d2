"""To go on from a finished model with other text: its weights and its tokenizer, and a new run.

No optimizer state comes along: its averages tell of the old text and of rates that have fallen to
nothing. The rates begin at ``GENTLER`` times the recipe's: at the full ones more of the old text
was forgotten and less of the new one learned (``python -m benchmarks.onward`` measures both).
Continued pretraining: Gururangan et al., arXiv 2004.10964; its rates: Ibrahim et al., arXiv
2403.08763. Chapter: loop.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from nanogpt2.config import GPTConfig
from nanogpt2.depth import model_at
from nanogpt2.errors import UserError
from nanogpt2.files import sha256_of
from nanogpt2.model.gpt import GPT
from nanogpt2.recipes import Recipe, get_recipe
from nanogpt2.run import Run
from nanogpt2.training.checkpoint import (
    FOR_A_MODEL,
    MODEL_FILE,
    damaged,
    find_checkpoint,
    learned,
    read_state,
)
from nanogpt2.training.loading import find_tokenizer, load_model
from nanogpt2.training.nanochat import STARTS, is_nanochat, newest, read_nanochat

FREE = ("sequence_len", *STARTS)
"""what of a configuration the weights do not depend on: the context, and how they once began"""


def onward_recipe(path: Path, named: str | None) -> Recipe:
    """The recipe of a run that goes on from the model at ``path``: its own, or the one ``named``.

    Depth, sizes and switches are the model's. Raises UserError where there is no model, or no
    recipe could have made one of its sizes.
    """
    if is_nanochat(path):
        with damaged(path, "fetch it again"):
            config, own = read_nanochat(path)[0], get_recipe(named or "run1")
    else:
        state = read_state(find_checkpoint(path, FOR_A_MODEL))
        config = GPTConfig.from_dict(state["model"])
        own = get_recipe(named) if named else Recipe.from_dict(state["recipe"])
    depth, head_dim = config.n_layer, config.n_embd // config.n_head
    aspect = max(1, config.n_embd // depth)
    made = replace(own, depth=depth, head_dim=head_dim, aspect=aspect, model=config)
    require_same_model(config, model_at(depth, made), path)
    return made


def require_same_model(there: GPTConfig, here: GPTConfig, path: Path) -> None:
    """Raise UserError unless the weights of the model ``there`` serve the one ``here``."""
    asked = here.to_dict()
    for name, value in there.to_dict().items():
        free = name in FREE and (name != "sequence_len" or there.positions == "rope")
        if not free and asked[name] != value:
            raise UserError(
                f"the model in {path} does not fit: its {name} is {value}, and the run's would be "
                f"{asked[name]}; leave out what changes it, or start without --init-from"
            )


def identity_of(asked: Run) -> dict[str, Any]:
    """``asked.identity``, with the SHA-256 of the weights file that the run begins with.

    Where that has gone it is what the run's newest checkpoint says, which needs it no more.
    """
    identity, path = asked.identity(), asked.init_from
    if path is None:
        return identity
    if is_nanochat(path):
        return identity | {"start": sha256_of(newest(path)[1])}
    try:
        return identity | {"start": sha256_of(find_checkpoint(path, FOR_A_MODEL) / MODEL_FILE)}
    except UserError:
        known = (learned(asked.out) or {}).get("identity", {})
        return identity | {"start": known.get("start", identity["start"])}


def take_weights(asked: Run, model: GPT) -> None:
    """Fill ``model`` from ``asked.init_from``; UserError where weights or tokenizer do not fit."""
    path = asked.init_from
    assert path is not None
    source = load_model(path)
    require_same_model(source.config, model.config, path)
    if not is_nanochat(path):
        find_tokenizer(path, asked.tokenizer_dir)  # which says so where it is another
    model.load_state_dict(source.state_dict())
