"""From a checkpoint to a model, or to a run that goes on: same ranks bit for bit, others resharded.

Reads this project's checkpoints (``storage.py`` has the layout) and nanochat's. Nothing is
unpickled: safetensors and JSON, and ``weights_only=True`` for nanochat's files. Chapter: loop.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from nanogpt2.config import GPTConfig
from nanogpt2.depth import parameter_counts
from nanogpt2.errors import UserError
from nanogpt2.model.gpt import GPT
from nanogpt2.optim import MuonAdamW
from nanogpt2.training.nanochat import is_nanochat, read_nanochat
from nanogpt2.training.saving import shard_file
from nanogpt2.training.storage import (
    MARKER,
    MODEL_FILE,
    STATE_FILE,
    learned,
    newest_whole,
    open_tensors,
    read_state,
    verify,
)

LONGEST_SEQUENCE = 1 << 20
"""a configuration read from a file may not ask for more (its rotary tables grow with it)"""


class Shards:
    """The optimizer's state in a checkpoint, whatever number of ranks wrote it."""

    def __init__(self, folder: Path, world_size: int) -> None:
        self.folder, self.world_size = folder, world_size
        self.data: list[Any] = []
        """every rank's position in the data"""
        self.ranges: dict[str, list[tuple[int, int, Any]]] = defaultdict(list)
        for rank in range(world_size):
            file = open_tensors(folder / shard_file(rank, world_size))
            metadata = self._metadata(file)
            self.data.append(metadata["data"])
            for name, (start, stop) in metadata["ranges"].items():
                self.ranges[name].append((start, stop, file))

    def _metadata(self, file: Any) -> dict[str, Any]:
        try:
            state = json.loads((file.metadata() or {})["state"])
            ranges = {str(k): (int(a), int(b)) for k, (a, b) in state["ranges"].items()}
            return {"ranges": ranges, "data": state["data"]}
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(
                f"the optimizer's files in {self.folder} do not say what they hold ({error!r}); "
                "use another checkpoint"
            ) from None

    def read(self, name: str, state: str, start: int, stop: int) -> Tensor:
        """Rows [start, stop) of one state of one parameter, put together from the ranks' shares."""
        key = f"{name}/{state}"
        try:
            for first, last, file in self.ranges[name]:
                if (first, last) == (start, stop):
                    return file.get_tensor(key)
            pieces, at = [], start
            for first, last, file in sorted(self.ranges[name], key=lambda piece: piece[:2]):
                if first <= at < last and (at < stop or start == stop):
                    pieces.append(file.get_slice(key)[at - first : min(stop, last) - first])
                    at = max(at, min(stop, last))
        except (SafetensorError, RuntimeError, ValueError) as error:
            raise UserError(f"{self.folder}: {key} is unreadable ({error})") from None
        if at < stop or not pieces:
            raise UserError(
                f"{self.folder} has no optimizer state for {name} (rows {start} to {stop}): "
                "it is of another model or recipe"
            )
        return torch.cat(pieces)


def read_config(folder: Path, state: dict[str, Any]) -> GPTConfig:
    """The model's configuration in a checkpoint's state; UserError when it is not one."""
    try:
        return GPTConfig.from_dict(state["model"])
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None
    except (TypeError, ValueError, OverflowError, ArithmeticError) as error:
        raise UserError(f"{folder} has no valid model configuration ({error})") from None


def restore_model(folder: Path, model: GPT) -> None:
    """Fill ``model`` with the checkpoint's parameters, in place and in the model's precision."""
    _fill(model, _read_all(folder / MODEL_FILE), folder)


def restore_optimizer(shards: Shards, optimizer: MuonAdamW, step: int) -> None:
    """Fill this rank's share of the optimizer; raises UserError when the shapes do not fit."""
    try:
        optimizer.load_shards(shards.read, step)
    except RuntimeError as error:
        raise UserError(
            f"{shards.folder} does not fit this optimizer ({error}); "
            "continue with the recipe it was trained with"
        ) from None


def load_model(path: Path | str, device: str | torch.device = "cpu") -> GPT:
    """The model of a run or a checkpoint, in evaluation mode, products in fp32.

    Args:
        path: a run's folder (its newest whole checkpoint is taken), a checkpoint's folder, or a
            nanochat checkpoint (its folder, or one ``model_XXXXXX.pt``).
        device: where to put it.

    Raises:
        UserError: nothing there to load, or it is damaged.
    """
    path = Path(path)
    if is_nanochat(path):
        config, weights = read_nanochat(path)
        source = path
    else:
        source = find_checkpoint(path)
        config = read_config(source, read_state(source))
        weights = _read_all(source / MODEL_FILE)
    _check_size(source, config, weights)
    with torch.device(device):
        model = GPT(config)
    _fill(model, weights, source)
    return model.eval()


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that ``path`` means: itself, or the newest whole one of a run. Verified."""
    if (path / MARKER).is_file() or (path / MODEL_FILE).is_file():
        verify(path)
        return path
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise UserError(f"{path} {what}; give the folder of a run or of a checkpoint")
    passed_over: list[str] = []
    found = newest_whole(path, passed_over.append)
    if found is None:
        why = f" ({passed_over[0]})" if passed_over else ""
        raise UserError(f"{path} holds no whole checkpoint{why}; train a model first")
    return found


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


def _read_all(path: Path) -> dict[str, Tensor]:
    file = open_tensors(path)
    try:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise UserError(f"{path} is unreadable ({error}); use another checkpoint") from None


def _check_size(source: Path, config: GPTConfig, weights: dict[str, Tensor]) -> None:
    """Refuse a configuration that the file's tensors do not bear out, before memory is taken."""
    layers = sum(name.endswith(".attn.c_q.weight") for name in weights)
    elements = sum(tensor.numel() for tensor in weights.values())
    if config.n_layer != layers:
        raise UserError(
            f"{source} has {layers} layers and its configuration says {config.n_layer}; "
            "model and configuration are not of one checkpoint"
        )
    expected = parameter_counts(config)["total"]
    if expected != elements:
        raise UserError(
            f"{source} has {elements:,} parameters and its configuration gives {expected:,}; "
            "model and configuration are not of one checkpoint"
        )
    if config.sequence_len > LONGEST_SEQUENCE:
        raise UserError(f"{source} asks for a context of {config.sequence_len:,} tokens")


def _fill(model: GPT, weights: dict[str, Tensor], source: Path) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).split("\n")[1].strip() if "\n" in str(error) else str(error)
        raise UserError(
            f"{source} is a checkpoint of another model ({first}); "
            "use the configuration it was trained with"
        ) from None
