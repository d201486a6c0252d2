"""A checkpoint folder of this program, of a model alone: what any ``--checkpoint`` here takes.

Of nanochat's checkpoints it makes one of ours. Chapter: loop.
"""

from __future__ import annotations

from pathlib import Path

from nanogpt2.export.trained import Trained
from nanogpt2.files import write_json
from nanogpt2.training.checkpoint import (
    FOR_A_MODEL,
    MARKER,
    MODEL_FILE,
    STATE_FILE,
    describe_file,
    write_tensors,
)


def write(trained: Trained, folder: Path) -> None:
    """``model.safetensors``, its configuration in ``state.json``, the tokenizer in a folder."""
    tensors = {name: t.contiguous() for name, t in trained.model.state_dict().items()}
    write_tensors(folder / MODEL_FILE, tensors, {"format": "pt"})
    state = {
        "step": trained.step,
        "world_size": 1,
        "model": trained.model.config.to_dict(),
        "recipe": {},
        "progress": {},
        "tokenizer": trained.tokenizer.digest,
    }
    write_json(folder / STATE_FILE, state)
    trained.tokenizer.save(folder / "tokenizer")
    files = {name: describe_file(folder / name) for name in FOR_A_MODEL}
    write_json(folder / MARKER, {"files": files})
