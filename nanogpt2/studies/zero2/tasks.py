"""What each rank of the chapter on ZeRO-2 does; it leaves what it found as JSON.

``nanogpt2.studies.zero2.ranks`` starts them. The failures happen here too, in processes of their
own.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from nanogpt2.depth import dial, model_at
from nanogpt2.files import write_json
from nanogpt2.model.gpt import GPT
from nanogpt2.optim import apply_schedules, build_optimizer
from nanogpt2.optim.collectives import Collectives
from nanogpt2.optim.sharded import MuonAdamW, expected_traffic
from nanogpt2.recipes import get_recipe
from nanogpt2.training.ranks import Ranks, join

LOST_AT = 3


def tour(ranks: Ranks, _: argparse.Namespace) -> dict[str, Any]:
    """Each collective once, on a few numbers: before and after."""
    comm, W, r = Collectives(), ranks.world_size, ranks.rank
    mine = torch.tensor([10.0 * (r + 1) + i for i in range(W)])
    found: dict[str, Any] = {"at first": mine.tolist()}
    copy = mine.clone()
    dist.broadcast(copy, src=0)
    found["broadcast"] = copy.tolist()
    found["all-reduce"] = comm.all_reduce(mine.clone()).wait().tolist()
    part = comm.reduce_scatter(mine.clone()).wait()
    found["reduce-scatter"] = part.tolist()
    found["all-gather of that"] = comm.all_gather(mine.new_empty(W), part).wait().tolist()
    return found


def step(ranks: Ranks, at: argparse.Namespace) -> dict[str, Any]:
    """One training step of a model by all ranks, and the same step by one process alone."""
    recipe, W = get_recipe("run1"), ranks.world_size
    sizes = {"sequence_len": 128, "vocab_size": at.vocab_size}
    config = replace(model_at(at.depth, recipe), **sizes)
    rows = torch.randint(0, at.vocab_size, (W, 129), generator=torch.Generator().manual_seed(0))
    alone_group = [dist.new_group([rank]) for rank in range(W)][ranks.rank]
    # fp32 products, so that what is left between one process and four is the order of sums
    made: dict[str, Any] = {"weight_decay": dial(at.depth, recipe).weight_decay}
    made["dtype"] = torch.float32

    def prepared(group: Any = None) -> tuple[GPT, MuonAdamW]:
        model = GPT(config)
        model.init_weights(0)
        optimizer = build_optimizer(model, recipe, process_group=group, **made)
        apply_schedules(optimizer, recipe, 0, 100)
        return model, optimizer

    model, optimizer = prepared()
    started = time.perf_counter()
    mine = rows[ranks.rank : ranks.rank + 1]
    model(mine[:, :-1], mine[:, 1:]).backward()
    backward = time.perf_counter() - started
    ranks.barrier()
    optimizer.comm.events = []
    zero = time.perf_counter()
    optimizer.step()
    done = time.perf_counter() - zero
    calls, size = expected_traffic(optimizer)
    events = [
        {**asdict(event), "start": event.start - zero, "stop": event.stop - zero}
        for event in optimizer.comm.events
    ]
    found = {
        "hash": _fingerprint(model),
        "calls": dict(optimizer.comm.calls),
        "bytes": dict(optimizer.comm.bytes),
        "expected calls": calls,
        "expected bytes": size,
        "state": optimizer.state_bytes(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "events": events,
        "seconds": {"forward and backward": backward, "step": done},
    }
    sharded = {name: p.detach().clone() for name, p in model.named_parameters()}
    del model, optimizer
    if ranks.is_main:
        found["alone"] = _alone(*prepared(alone_group), rows, sharded)
    ranks.barrier()
    return found


def _alone(
    model: GPT, optimizer: MuonAdamW, rows: torch.Tensor, sharded: dict[str, torch.Tensor]
) -> dict[str, float]:
    """The same step by one process, and how far its parameters are from those of all ranks."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for row in rows.split(1):
        (model(row[:, :-1], row[:, 1:]) / len(rows)).backward()
    optimizer.step()
    moved, apart = 0.0, 0.0
    for name, p in model.named_parameters():
        moved += float((p.detach() - before[name]).double().square().sum())
        apart += float((p.detach() - sharded[name]).double().square().sum())
    return {"state": optimizer.state_bytes(), "apart": (apart / moved) ** 0.5}


def _fingerprint(model: GPT) -> str:
    """SHA-256 of all parameters, bit by bit."""
    digest = hashlib.sha256()
    for p in model.parameters():
        digest.update(p.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def lost(ranks: Ranks, _: argparse.Namespace) -> dict[str, Any]:
    """Failure: the last rank is killed in the middle of a run."""
    comm = Collectives()
    for number in range(10_000):
        if number == LOST_AT and ranks.rank == ranks.world_size - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        comm.all_reduce(torch.ones(1000)).wait()
        time.sleep(0.01)
    return {}


def unequal(ranks: Ranks, at: argparse.Namespace) -> dict[str, Any]:
    """Failure: one rank has a longer tensor than the others."""
    group = dist.new_group(list(range(ranks.world_size)), timeout=timedelta(seconds=5))
    mine = torch.full((at.longer if ranks.rank == 0 else 1000,), float(ranks.rank + 1))
    try:
        dist.all_reduce(mine, group=group)
    except RuntimeError as error:
        write_json(Path(at.out) / f"{ranks.rank}.json", {"error": str(error).splitlines()[0]})
        os._exit(0)
    return {"sum": mine[:5].tolist(), "last": mine[-5:].tolist()}


def early(ranks: Ranks, at: argparse.Namespace) -> dict[str, Any]:
    """Failure: a buffer is used again before its collective is done."""
    size = 1 << 22
    right = float(sum(range(1, ranks.world_size + 1)))
    wrong = []
    for _ in range(3):
        buffer = torch.full((size,), float(ranks.rank + 1))
        work = dist.all_reduce(buffer, async_op=True)
        buffer.fill_(0.0)  # "the gradient is on its way, so its memory is free"
        work.wait()
        wrong.append(int((buffer != right).sum()))
        dist.barrier()
    held = Collectives().all_reduce(torch.full((size,), float(ranks.rank + 1)))
    return {
        "elements": size,
        "wrong": max(wrong),
        "wrong, held": int((held.wait() != right).sum()),
    }


TASKS: dict[str, Callable[[Ranks, argparse.Namespace], dict[str, Any]]] = {
    "tour": tour,
    "step": step,
    "lost": lost,
    "unequal": unequal,
    "early": early,
}


def main(argv: Sequence[str] | None = None) -> None:
    """One rank: do the task, leave what was found."""
    parser = argparse.ArgumentParser(prog="python -m nanogpt2.studies.zero2.tasks")
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--out", required=True)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--longer", type=int, default=1500)
    at = parser.parse_args(argv)
    torch.set_num_threads(1)
    with join("cpu") as ranks:
        found = TASKS[at.task](ranks, at)
        write_json(Path(at.out) / f"{ranks.rank}.json", found)


if __name__ == "__main__":
    main()
