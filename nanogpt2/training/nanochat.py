"""nanochat's checkpoints: ``model_XXXXXX.pt`` beside ``meta_XXXXXX.json``.

Parameter names are shared, so that only the wrapper's prefix and the configuration are translated.
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

_NAME = re.compile(r"model_(\d+)\.pt")
FIELDS = (
    "sequence_len", "vocab_size", "n_layer", "n_head", "n_kv_head", "n_embd", "window_pattern",
)  # fmt: skip
_PREFIX = "_orig_mod."  # left by torch.compile


def _models(path: Path) -> list[Path]:
    """The models that ``path`` means, the newest one last."""
    files = path.glob("model_*.pt") if path.is_dir() else [path]
    steps = {int(match[1]): file for file in files if (match := _NAME.fullmatch(file.name))}
    return [steps[step] for step in sorted(steps)]


def is_nanochat(path: Path) -> bool:
    """Whether ``path`` is such a file, or a folder of them."""
    return bool(_models(path))


def read_nanochat(path: Path) -> tuple[GPTConfig, dict[str, Tensor]]:
    """Configuration and parameters (matrices in fp32) of the file, or of the folder's newest.

    Raises UserError where it holds anything but tensors, and else what Python and torch raise of a
    part that is missing or damaged: for ``checkpoint.damaged`` to say.
    """
    file, config = _models(path)[-1], read_nanochat_config(path)
    weights = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(weights, dict) or not all(_is_plain(t) for t in weights.values()):
        raise UserError(f"{file} is not a dictionary of tensors; give a nanochat base model")
    return config, {str(name).removeprefix(_PREFIX): tensor for name, tensor in weights.items()}


def read_nanochat_config(path: Path) -> GPTConfig:
    """Configuration of the model that ``read_nanochat`` reads, and raises of as that does."""
    file = _models(path)[-1]
    meta = file.with_name(file.name.replace("model_", "meta_").replace(".pt", ".json"))
    model = read_json(meta, "copy it from where the model came from")["model_config"]
    model = {"window_pattern": "L", **model}  # before windows, every layer saw everything
    return GPTConfig.from_dict({name: model[name] for name in FIELDS})


def _is_plain(value: Any) -> bool:
    """Whether ``value`` is a tensor with all its numbers in the file; a view may claim more."""
    return isinstance(value, Tensor) and value.layout == torch.strided and value.is_contiguous()
