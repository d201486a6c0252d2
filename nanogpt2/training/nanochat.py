"""nanochat's checkpoints: ``model_XXXXXX.pt`` beside ``meta_XXXXXX.json``, of any record.

Parameter names are shared, so that only the wrapper's prefix and the configuration are translated.
nanochat's configuration has sizes alone, its code the rest; what the code was, the tensors tell:
run 5 narrowed the value gates, run 6 brought smear. Run 4's softcap they do not show.

Chapter: loop.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nanogpt2.config import GPTConfig
from nanogpt2.errors import UserError
from nanogpt2.files import read_json
from nanogpt2.recipes import RECIPES, get_recipe

_NAME = re.compile(r"model_(\d+)\.pt")
FIELDS = (
    "sequence_len", "vocab_size", "n_layer", "n_head", "n_kv_head", "n_embd", "window_pattern",
)  # fmt: skip
STARTS = (
    "wte_std", "lm_head_std", "mlp_start_scale", "value_gate_start", "resid_lambda_start",
    "x0_lambda_start", "backout_start",
)  # fmt: skip
"""start values, over once a model is trained"""
OWN = "nanogpt2"
"""in a meta file that this program wrote: the whole configuration"""
_PREFIX = "_orig_mod."  # left by torch.compile


def _models(path: Path) -> dict[int, Path]:
    """The models that ``path`` means, by step: itself, a folder of them, or nanochat's own."""
    files = list(path.glob("model_*.pt")) if path.is_dir() else [path]
    if not files and len(models := list(path.glob("base_checkpoints/d*"))) == 1:
        files = list(models[0].glob("model_*.pt"))
    return {int(match[1]): file for file in files if (match := _NAME.fullmatch(file.name))}


def is_nanochat(path: Path) -> bool:
    """Whether ``path`` is such a file, or a folder of them."""
    return bool(_models(path))


def newest(path: Path) -> tuple[int, Path]:
    """Step and file of the newest model that ``path`` means."""
    return max(_models(path).items())


def read_nanochat(path: Path, recipe: str | None = None) -> tuple[GPTConfig, dict[str, Tensor]]:
    """Configuration and parameters (matrices in fp32) of the file, or of the folder's newest.

    ``recipe`` names the record whose switches it has, else the tensors tell.

    Raises UserError where it holds anything but tensors, and else what Python and torch raise of a
    part that is missing or damaged: for ``checkpoint.damaged`` to say.
    """
    _, file = newest(path)
    meta = file.with_name(file.name.replace("model_", "meta_").replace(".pt", ".json"))
    said = read_json(meta, "copy it from where the model came from")
    model = {"window_pattern": "L", **said["model_config"]}  # before windows all saw everything
    weights = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(weights, dict) or not all(_is_plain(t) for t in weights.values()):
        raise UserError(f"{file} is not a dictionary of tensors; give a nanochat base model")
    weights = {str(name).removeprefix(_PREFIX): tensor for name, tensor in weights.items()}
    sizes = {name: model[name] for name in FIELDS}
    if OWN in said and recipe:
        raise UserError(f"{meta} says itself what its model is; leave out --recipe")
    if OWN in said:
        return GPTConfig.from_dict(said[OWN]["config"] | sizes), weights
    gates = [t.size(1) for name, t in weights.items() if name.endswith(".ve_gate.weight")]
    smears = "smear_gate.weight" in weights
    told = (
        "head"
        if smears
        else "run5"
        if gates and gates[0] == RECIPES["run5"].model.value_gate_channels
        else "run1"
    )
    switches = get_recipe(recipe or told).model.to_dict() | {
        "value_embeddings": bool(gates),
        "residual_scalars": "resid_lambdas" in weights,
    }
    if gates:
        switches["value_gate_channels"] = gates[0]
    if smears:
        switches["smear_channels"] = weights["smear_gate.weight"].size(1)
    return GPTConfig.from_dict(switches | sizes), weights


def record_of(config: GPTConfig) -> str:
    """The record whose code runs this model; UserError where nanochat never had such a one."""
    own = config.to_dict()
    free = {*FIELDS, *STARTS, *(() if config.smear else ("smear_channels",))}
    nearest: tuple[int, str, str] | None = None
    for name, recipe in RECIPES.items():
        theirs = recipe.model.to_dict()
        differ = [field for field in own if field not in free and own[field] != theirs[field]]
        if not differ:
            return "run1" if name == "laptop" else name
        if nearest is None or len(differ) < nearest[0]:
            nearest = len(differ), name, differ[0]
    assert nearest is not None
    _, name, field = nearest
    raise UserError(
        f"no version of nanochat has this model: {field} is {own[field]}, and "
        f"{RECIPES[name].model.to_dict()[field]} in {name}, the nearest; export it --to hf"
    )


def _is_plain(value: Any) -> bool:
    """Whether ``value`` is a tensor with all its numbers in the file; a view may claim more."""
    return isinstance(value, Tensor) and value.layout == torch.strided and value.is_contiguous()
