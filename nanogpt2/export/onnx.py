"""An ONNX graph from tokens to logits, for programs without Python. Chapter: speedrun.

It reads whole texts and has no cache. Its tokenizer is that of ``--to hf``, and ``export.json``
says what else a program needs: the token that every text begins with, and the longest text.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from nanogpt2.errors import UserError
from nanogpt2.export.fast_tokenizer import fast_tokenizer
from nanogpt2.export.trained import Trained
from nanogpt2.files import write_json
from nanogpt2.kernels.windows import plain_attention
from nanogpt2.model.gpt import GPT
from nanogpt2.model.residual import previous_token


class WholeTexts:
    """Stands where the model asks for a cache: attention by its definition, the same at any size.

    The kernels choose by the sizes that they are given, which a graph does not know.
    """

    def positions(self, n_tokens: int) -> Tensor:
        """From the beginning."""
        return torch.arange(n_tokens)[None]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        """As ``plain_attention``."""
        return plain_attention(q, k, v, window)

    def previous_embedding(self, x: Tensor) -> Tensor:
        """As ``previous_token``."""
        return previous_token(x)

    def advance(self, n_tokens: int) -> None:
        """Nothing is kept."""


class Logits(nn.Module):
    """Tokens (B, T) -> fp32 logits (B, T, V)."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        """What ``GPT.forward`` gives without targets."""
        return self.model(input_ids, cache=WholeTexts())


def write(trained: Trained, folder: Path) -> None:
    """``model.onnx``, ``tokenizer.json`` and ``export.json``; UserError without onnxscript."""
    try:
        import onnxscript  # noqa: F401 (torch asks for it half-way)
    except ImportError:
        raise UserError(
            "--to onnx needs the packages onnx and onnxscript, which are not installed; install "
            "them with `pip install -e '.[onnx]'`"
        ) from None
    model, longest = trained.model, trained.model.max_positions
    example = torch.zeros(2, min(16, longest - 1), dtype=torch.long)
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=longest)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own insides
        torch.onnx.export(
            Logits(model).eval(),
            (example,),
            folder / "model.onnx",
            input_names=["input_ids"],
            output_names=["logits"],
            dynamic_shapes={"input_ids": sizes},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    write_json(folder / "tokenizer.json", fast_tokenizer(trained.tokenizer))
    config = model.config
    facts = {"bos_token_id": trained.tokenizer.bos_id, "vocab_size": config.vocab_size}
    write_json(folder / "export.json", facts | {"max_length": longest})
