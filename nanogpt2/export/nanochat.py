"""nanochat's own files: a base model that its commands load, and its tokenizer. Chapter: loop."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch

from nanogpt2.data.pickled import FILE
from nanogpt2.export.trained import Trained
from nanogpt2.files import write_json
from nanogpt2.training.nanochat import FIELDS, OWN, record_of


def write(trained: Trained, folder: Path) -> None:
    """The layout of nanochat's base folder: ``base_checkpoints/d12/``, ``tokenizer/``.

    UserError where the model has what no version of nanochat has.
    """
    config = trained.model.config
    switches = record_of(config)
    place = folder / "base_checkpoints" / f"d{config.n_layer}"
    place.mkdir(parents=True)
    torch.save(dict(trained.model.state_dict()), place / f"model_{trained.step:06d}.pt")
    meta = {
        "step": trained.step,
        "model_config": {name: getattr(config, name) for name in FIELDS},
        OWN: {"switches": switches, "config": config.to_dict()},
    }
    write_json(place / f"meta_{trained.step:06d}.json", meta)
    (folder / "tokenizer").mkdir()
    with open(folder / "tokenizer" / FILE, "wb") as file:
        pickle.dump(trained.tokenizer.encoding, file)
    sizes = torch.tensor(trained.tokenizer.token_bytes, dtype=torch.int32)
    torch.save(sizes, folder / "tokenizer" / "token_bytes.pt")
