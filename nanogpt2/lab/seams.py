"""Code changed for a while: how the chapters show failures on the package's own model.

Every place where that happens is declared here, so that a room knows which of its names a study
relies on.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

SEAMS = (
    "nanogpt2.config.GPTConfig.window_sizes",
    "nanogpt2.data.tokenizer.SPLIT_PATTERN",
    "nanogpt2.lab.small_data.SmallData.batch",
    "nanogpt2.model.attention.add_value_embedding",
    "nanogpt2.model.attention.attention",
    "nanogpt2.model.attention.rms_norm",
    "nanogpt2.model.attention.rotate",
    "nanogpt2.model.gpt.GPT.init_weights",
    "nanogpt2.model.gpt.GPT.zero_grad",
    "nanogpt2.model.gpt.Norm",
    "nanogpt2.model.gpt.value_tables",
    "nanogpt2.model.norm.rms_norm",
    "nanogpt2.optim.muon.neuron_axis",
    "nanogpt2.optim.muon.shape_factor",
    "nanogpt2.optim.muon.variance_scale",
    "nanogpt2.optim.polar_express.COEFFICIENTS",
    "nanogpt2.optim.sharded.gradient_of",
)
"""names that a study may change, each where the code that uses it looks it up"""
Patch = AbstractContextManager[Any]
"""what ``patched`` returns: something is changed within its block"""


@contextmanager
def patched(seam: str, value: Any) -> Iterator[Any]:
    """``seam`` is ``value`` within the block, and as before after it; yields what it was."""
    owner, name = _place(seam)
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield before
    finally:
        setattr(owner, name, before)


def _place(seam: str) -> tuple[Any, str]:
    if seam not in SEAMS:
        raise ValueError(f"{seam} is no seam; declare it in {__name__}.SEAMS")
    owner, _, name = seam.rpartition(".")
    return pkgutil.resolve_name(owner), name
