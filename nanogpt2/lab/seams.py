"""Code changed for a while: how the chapters show failures on the package's own model.

Every place where that happens is declared here, so that a room knows which of its names a study
relies on.
"""

from __future__ import annotations
import __future__

import difflib
import inspect
import pkgutil
import textwrap
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

SEAMS = (
    "nanogpt2.config.GPTConfig.window_sizes",
    "nanogpt2.data.tokenizer.SPLIT_PATTERN",
    "nanogpt2.data.texts.packed_rows",
    "nanogpt2.lab.small_data.SmallData.batch",
    "nanogpt2.lab.small_data.rows_at",
    "nanogpt2.model.attention.add_value_embedding",
    "nanogpt2.model.attention.attention",
    "nanogpt2.model.attention.rms_norm",
    "nanogpt2.model.attention.rotate",
    "nanogpt2.model.gpt.GPT.hidden",
    "nanogpt2.model.gpt.GPT.init_weights",
    "nanogpt2.model.gpt.GPT.loss",
    "nanogpt2.model.gpt.GPT.zero_grad",
    "nanogpt2.model.gpt.Norm",
    "nanogpt2.model.gpt.value_tables",
    "nanogpt2.model.norm.rms_norm",
    "nanogpt2.optim.muon.neuron_axis",
    "nanogpt2.optim.muon.shape_factor",
    "nanogpt2.optim.parameter_groups",
    "nanogpt2.optim.polar_express.COEFFICIENTS",
    "nanogpt2.optim.sharded.Stack.update",
    "nanogpt2.optim.sharded.gradient_of",
    "nanogpt2.studies.failure_clinic.runs.rate_factor",
    "nanogpt2.studies.failure_clinic.runs.resumed",
    "nanogpt2.training.fit.apply_schedules",
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


@dataclass(frozen=True)
class Flip:
    """One line of a function written otherwise: called, it is so within a block, like ``patched``.

    The function is compiled anew from its own source, in its own module.
    """

    seam: str
    right: str
    """the part of a line that stands in the source, once"""
    wrong: str

    def __call__(self) -> Patch:
        owner, name = _place(self.seam)
        function = getattr(owner, name)
        flags = __future__.annotations.compiler_flag
        made: dict[str, Any] = {}
        code = compile("".join(self._lines()[1]), f"<{self.seam}>", "exec", flags)
        exec(code, vars(inspect.getmodule(function)), made)
        return patched(self.seam, made[function.__name__])

    def diff(self) -> str:
        """The line as it was (-) and as it is (+), between its neighbours."""
        shown = difflib.unified_diff(*self._lines(), n=1)
        return "".join(line for line in shown if not line.startswith(("---", "+++", "@@")))

    def _lines(self) -> tuple[list[str], list[str]]:
        owner, name = _place(self.seam)
        source = textwrap.dedent(inspect.getsource(getattr(owner, name)))
        if source.count(self.right) != 1:
            raise ValueError(f"{self.right!r} does not stand once in {self.seam}")
        changed = source.replace(self.right, self.wrong)
        return source.splitlines(keepends=True), changed.splitlines(keepends=True)
