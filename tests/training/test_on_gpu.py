"""A compiled run on an NVIDIA GPU that is taken up again, and NCCL as the optimizer calls it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from nanogpt2.optim.collectives import TORCH_NAMES
from nanogpt2.recipes import RUN1, RUN6
from nanogpt2.training.trainer import train
from tests.distributed import free_port
from tests.drills.tiny_run import curve, prepare

MODEL: dict[str, Any] = {"sequence_len": 256, "vocab_size": 270}
SIZES: dict[str, Any] = {"depth": 4, "aspect": 64, "batch_tokens": 8192, "device_batch_size": 16}
TAKEN_UP, STEPS = 30, 60


@pytest.mark.cuda
@pytest.mark.parametrize("record", [RUN1, RUN6], ids=["bf16", "fp8"])
def test_sixty_compiled_steps_are_taken_up_again(record: Any, tmp_path: Path) -> None:
    """The step after the checkpoint is the same to the bit; later ones as atomics let them."""
    data, sizes = prepare(tmp_path), {**SIZES, "iterations": STEPS, "fp8_min_side": 16}
    recipe = replace(record, **sizes, model=replace(record.model, **MODEL))
    watch = {"compile": "on", "eval_every": STEPS, "checkpoint_every": TAKEN_UP, "keep_last": 4}
    whole = data.settings(tmp_path / "whole", recipe, device="cuda", **watch)
    result = train(whole)
    assert result.compiled and result.step == STEPS
    (checkpoint,) = (whole.out / "checkpoints").glob(f"step_*{TAKEN_UP}")
    torch._dynamo.reset()
    again = replace(whole, out=tmp_path / "again", resume_from=checkpoint)
    assert train(again).resumed_from == TAKEN_UP
    losses = [{p["step"]: p["loss"] for p in curve(run.out)} for run in (whole, again)]
    assert losses[0][TAKEN_UP + 1] == losses[1][TAKEN_UP + 1]
    assert losses[1][STEPS] == pytest.approx(losses[0][STEPS], rel=2e-2)
    assert losses[0][STEPS] < 0.9 * losses[0][1]


@pytest.mark.cuda
def test_nccl_takes_the_three_collectives() -> None:
    store = dist.TCPStore("127.0.0.1", free_port(), 1, is_master=True)
    device = torch.device("cuda", 0)
    dist.init_process_group("nccl", store=store, rank=0, world_size=1, device_id=device)
    try:
        given = torch.arange(12.0, device=device).view(4, 3)
        for names in TORCH_NAMES.values():
            operation = next(getattr(dist, name) for name in names if hasattr(dist, name))
            came = torch.zeros_like(given) if len(names) > 1 else given.clone()
            buffers = (came, given) if len(names) > 1 else (came,)
            operation(*buffers, async_op=True).wait()
            assert torch.equal(came, given), names
    finally:
        dist.destroy_process_group()
