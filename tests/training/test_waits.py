"""What a step waits for: its device once, other ranks in one sum, the garbage collector never."""

from __future__ import annotations

import gc
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from nanogpt2.optim import MuonAdamW
from nanogpt2.training.feed import STEPS_TO_FIT
from nanogpt2.training.settings import StepReport
from nanogpt2.training.trainer import train
from tests.drills.tiny_run import TinyData
from tests.training.ranks import run_ranks


def counted(run: Any) -> tuple[list[Counter[str]], int]:
    """How often each of the later steps waited; and how many small parameters are all-reduced."""
    calls: Counter[str] = Counter()
    each: list[Counter[str]] = []
    before: list[Counter[str]] = []
    small: list[int] = []
    step = MuonAdamW.step

    def counting(owner: Any, name: str, patched: pytest.MonkeyPatch) -> None:
        real = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            calls[name] += 1
            return real(*arguments, **named)

        patched.setattr(owner, name, call)

    def on_step(report: StepReport) -> None:
        if report.step > STEPS_TO_FIT:
            each.append(calls - before[-1])
        before.append(calls.copy())

    def taking(optimizer: MuonAdamW) -> Any:
        small[:] = [sum(not stack.dealt for stack in optimizer.stacks)]
        return step(optimizer)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(MuonAdamW, "step", taking)
        counting(dist, "all_reduce", patched)
        for name in ("item", "tolist", "cpu", "__float__", "__bool__"):
            counting(torch.Tensor, name, patched)
        train(run, on_step)
    return each, small[0]


def test_a_step_waits_for_its_device_once(tiny_data: TinyData, tmp_path: Path) -> None:
    """One list of numbers; the item is the root of one that is on the host by then."""
    run = tiny_data.settings(tmp_path, steps=8, eval_every=-1, checkpoint_every=0)
    each, _ = counted(run)
    assert each[:-1] == [Counter(tolist=1, item=1)] * (7 - STEPS_TO_FIT), "the last step is saved"


def test_with_the_loss_travels_what_ranks_agree_on(tiny_data: TinyData, tmp_path: Path) -> None:
    run = tiny_data.settings(tmp_path, steps=8, eval_every=-1, checkpoint_every=0)
    each, small = run_ranks(2, counted, run)[0]
    assert each[:-1] == [Counter(tolist=1, item=1, all_reduce=small + 1)] * (7 - STEPS_TO_FIT)


def test_garbage_is_collected_between_steps_alone(tiny_data: TinyData, tmp_path: Path) -> None:
    assert gc.isenabled()
    seen = []
    train(tiny_data.settings(tmp_path, steps=3), lambda report: seen.append(gc.isenabled()))
    assert seen == [False] * 3
    assert gc.isenabled() and not gc.get_freeze_count()


def stopped_while_measuring(run: Any) -> Any:
    """Rank 1 alone is told to stop, while all of them measure."""
    from nanogpt2.evals import during

    real, asked = during.bits_per_byte, []

    def told(*arguments: Any, stop: Any, **named: Any) -> float:
        if os.environ["RANK"] == "1" and not asked:
            asked.append(1)
            os.kill(os.getpid(), 15)
        return real(*arguments, stop=stop, **named)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(during, "bits_per_byte", told)
        result = train(run)
    return result.step, result.stopped_by, result.val_bpb


def test_ranks_leave_a_measurement_when_one_is_told_to_stop(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    run = tiny_data.settings(tmp_path, steps=12, eval_every=6)
    assert run_ranks(2, stopped_while_measuring, run) == [(6, "SIGTERM", None)] * 2
