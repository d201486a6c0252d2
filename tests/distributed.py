"""Run a function on several gloo processes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import socket
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.waiting import wait_until


def _worker(rank: int, world: int, port: int, folder: str, function: Callable, args: tuple) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(world)
    )
    try:
        if world > 1:
            dist.init_process_group("gloo", rank=rank, world_size=world)
        result = function(rank, world, *args)
        Path(folder, f"{rank}").write_bytes(pickle.dumps(result))
        if world > 1:
            dist.barrier()
            dist.destroy_process_group()
    except BaseException:
        Path(folder, f"{rank}.error").write_text(traceback.format_exc())
        raise


def free_port() -> int:
    """A port on loopback that nobody listens on, below those that the system deals out itself."""
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with socket.socket() as s, suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port


def run_ranks(world: int, function: Callable, *args: Any) -> list[Any]:
    """``function(rank, world, *args)`` on ``world`` processes; results in the order of ranks."""
    with tempfile.TemporaryDirectory() as folder:
        # A server that has imported torch once forks every rank: seconds less per process.
        multiprocessing.set_forkserver_preload(["nanogpt2.optim", "torch.distributed"])
        context = mp.start_processes(
            _worker,
            (world, free_port(), folder, function, args),
            nprocs=world,
            join=False,
            start_method="forkserver",
        )
        try:
            wait_until(lambda: context.join(timeout=1))
        finally:
            for process in context.processes:
                process.kill()
        return [pickle.loads(Path(folder, f"{rank}").read_bytes()) for rank in range(world)]
