"""The compiled run as a GPU takes it, on a processor: no graph breaks, none is traced twice, and
what was saved and resumed is the unbroken run to the bit."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from nanogpt2.training.settings import StepReport
from nanogpt2.training.trainer import train
from tests.drills.tiny_run import TinyData, curve, differences
from tests.training.ranks import run_ranks

STEPS = 60


def compiled(run: Any, stop_after: int = 0, backend: str = "inductor") -> dict[str, int]:
    """Train; what the compiler did, with an error if it was at work again after both graphs."""
    torch._dynamo.reset()
    counters.clear()

    seen: list[int] = []

    def on_step(report: StepReport) -> None:
        seen.append(report.step)
        if report.val_bpb is not None and len(seen) > 1:  # learned and measured: all is traced
            torch._dynamo.config.error_on_recompile = True
        if report.step == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch, "compile", partial(torch.compile, backend=backend))
        try:
            result = train(run, on_step)
        finally:
            torch._dynamo.config.error_on_recompile = False
    assert result.compiled
    return {"step": result.step, "breaks": sum(counters["graph_break"].values())}


def in_two_parts(run: Any) -> list[dict[str, int]]:
    return [compiled(run, 29), compiled(run)]


def test_sixty_compiled_steps_saved_and_resumed_to_the_bit(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    """Inductor's own code: two graphs of the model, and none of them broken."""
    watch = {"steps": STEPS, "compile": "on", "eval_every": 10, "checkpoint_every": 15}
    asked = {name: tiny_data.settings(tmp_path / name, **watch) for name in ("whole", "parts")}
    assert compiled(asked["whole"]) == {"step": STEPS, "breaks": 0}
    assert in_two_parts(asked["parts"]) == [
        {"step": 30, "breaks": 0},
        {"step": STEPS, "breaks": 0},
    ]
    assert differences(tmp_path / "parts", tmp_path / "whole") == []
    plain = tiny_data.settings(tmp_path / "plain", **{**watch, "compile": "off"})
    train(plain)
    for line, expected in zip(curve(tmp_path / "whole"), curve(tmp_path / "plain"), strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], rel=0.02)


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_four_compiled_ranks_saved_and_resumed_to_the_bit(
    tiny_data: TinyData, tmp_path: Path, backend: str
) -> None:
    watch = {"steps": STEPS, "compile": "on", "eval_every": 10, "checkpoint_every": 15}
    watch |= {"device_batch_size": 2}
    whole, parts = (tiny_data.settings(tmp_path / name, **watch) for name in ("whole", "parts"))
    ended = [{"step": STEPS, "breaks": 0}] * 4
    assert run_ranks(4, compiled, whole, 0, backend, timeout=900) == ended
    assert run_ranks(4, compiled, parts, 29, backend, timeout=900)[0]["step"] == 30
    assert run_ranks(4, compiled, parts, 0, backend, timeout=900) == ended
    assert differences(tmp_path / "parts", tmp_path / "whole") == []
