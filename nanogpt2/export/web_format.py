"""Weights as a page reads them: whole numbers with a scale a row, in files of script.

A page that was opened from a file may fetch nothing; it may only add scripts. So each file calls
``nanogpt2.bring(name, value)``, and its bytes are base64 of gzip, which also packs numbers of fewer
than 8 bits. A set of weights is cut into files of about a megabyte, so that a reader sees it come.
``page/tensors.js`` reads them. Chapter: where_the_time_goes.
"""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nanogpt2.config import GPTConfig
from nanogpt2.data.tokenizer import SPLIT_PATTERN, Tokenizer
from nanogpt2.errors import UserError
from nanogpt2.model.gpt import GPT

WHOLE_FROM = 4096
"""tensors smaller than this stay floats: gates, gains, scalars"""
PIECE = 3 << 18
"""bytes of a file's content, before it is packed: base64 makes a megabyte of it at most"""
PATTERNS = {
    SPLIT_PATTERN: (
        # no part of it gains by giving back what it took, so its possessive forms are plain here;
        # JavaScript counts U+FEFF among blanks and not U+0085, Unicode and tiktoken the reverse
        r"'(?:[sS\u017fdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])"
        r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,2}"
        r"| ?[^\p{White_Space}\p{L}\p{N}]+[\r\n]*|\p{White_Space}*[\r\n]"
        r"|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+"
    )
}
"""split pattern -> the same in JavaScript"""


def quantize(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Whole numbers (R, C) int8 and scales (R,) fp32 whose products are nearest to ``weight``.

    The largest of a row becomes 2^(bits - 1) - 1; 2 to 8 bits.
    """
    most = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / most
    return (weight / scale[:, None]).round().clamp(-most, most).to(torch.int8), scale


def rounded(model: GPT, bits: int) -> GPT:
    """A copy of ``model`` with the weights that the page will compute with."""
    copy = GPT(model.config)
    copy.load_state_dict(model.state_dict())
    with torch.no_grad():
        for weight in copy.parameters():
            if _is_whole(weight, bits):
                numbers, scale = quantize(weight, bits)
                weight.copy_(numbers * scale[:, None])
    return copy.eval()


def _is_whole(weight: Tensor, bits: int) -> bool:
    return bits <= 8 and weight.ndim == 2 and weight.numel() >= WHOLE_FROM


def write_weights(model: GPT, folder: Path, name: str, bits: int) -> dict[str, Any]:
    """Write ``NAME.0.js``, ``NAME.1.js`` ...; returns what the card says of the set.

    ``bits`` above 8 keeps floats of 32 bits.
    """
    rows = model.config.vocab_size
    floats: list[np.ndarray] = []
    whole: list[np.ndarray] = []
    index: list[list[Any]] = []
    at = {"floats": 0, "whole": 0}
    for key, value in model.state_dict().items():
        table = key in ("transformer.wte.weight", "lm_head.weight") or "value_embeds" in key
        weight = (value[:rows] if table else value).float()  # rows beyond V are never asked for
        place = -1
        if _is_whole(weight, bits):
            numbers, weight_or_scale = quantize(weight, bits)
            place = at["whole"]
            whole.append(numbers.numpy().ravel())
            at["whole"] += numbers.numel()
        else:
            weight_or_scale = weight
        index.append([key, list(weight.shape), at["floats"], place])
        floats.append(weight_or_scale.numpy().ravel())
        at["floats"] += weight_or_scale.numel()
    content = b"".join(part.tobytes() for part in (*floats, *whole))
    pieces = [content[i : i + PIECE] for i in range(0, len(content), PIECE)]
    size = sum(bring(folder, f"{name}.{i}", packed(piece)) for i, piece in enumerate(pieces))
    facts = {"files": len(pieces), "bytes": size, "bits": bits}
    return {**facts, "floats": at["floats"], "index": index}


def packed(content: bytes) -> str:
    """Base64 of gzip, the same on every day."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def bring(folder: Path, name: str, value: Any) -> int:
    """Write ``NAME.js``, that brings ``value`` to a page; returns its bytes."""
    text = f"nanogpt2.bring({json.dumps(name)}, {json.dumps(value)});\n"
    return (folder / f"{name}.js").write_text(text, encoding="ascii")


def page_config(config: GPTConfig) -> dict[str, Any]:
    """The model's switches, with each layer's window as a number of keys."""
    return {**config.to_dict(), "windows": [left for left, _ in config.window_sizes()]}


def page_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """Pattern, bytes and names of the tokens; UserError where the page cannot split as it does."""
    encoding = tokenizer.encoding
    if encoding._pat_str not in PATTERNS:
        raise UserError(
            "the page can split text by this package's pattern only, and this tokenizer has "
            "another one; export a model that was trained with `python -m nanogpt2.data.tokenizer`"
        )
    ranks, special = encoding._mergeable_ranks, encoding._special_tokens
    tokens = sorted(ranks, key=ranks.__getitem__)
    return {
        "pattern": PATTERNS[encoding._pat_str],
        "tokens": [base64.b64encode(token).decode() for token in tokens],
        "special": sorted(special, key=special.__getitem__),
    }
