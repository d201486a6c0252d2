"""Several ranks on one processor: processes that see what torchrun would have told them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from tests.distributed import free_port
from tests.drills.tiny_run import CONTEXT
from tests.waiting import PATIENCE


def run_ranks(
    world_size: int, function: Callable[..., Any], *arguments: Any, timeout: float = PATIENCE
) -> list[Any]:
    """``function(*arguments)`` in every rank; what each returned, or fails with its exit code."""
    processes, ends = start_ranks(world_size, function, *arguments)
    try:
        results = []
        for rank, end in enumerate(ends):
            if not end.poll(timeout):
                raise AssertionError(f"rank {rank} of {world_size} gave no result")
            try:
                results.append(pickle.loads(end.recv_bytes()))
            except EOFError:
                processes[rank].join()
                code = processes[rank].exitcode
                raise AssertionError(f"rank {rank} of {world_size} ended with {code}") from None
        for process in processes:
            process.join(timeout)
        return results
    finally:
        for process in processes:
            process.kill()


def start_ranks(
    world_size: int, function: Callable[..., Any], *arguments: Any
) -> tuple[list[Any], list[Connection]]:
    """The processes, started, and for each the pipe on which its result will come."""
    port, processes, ends = free_port(), [], []
    for rank in range(world_size):
        ours, theirs = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(
            target=_run, args=(rank, world_size, port, theirs, function, arguments)
        )
        process.start()
        theirs.close()
        processes.append(process)
        ends.append(ours)
    return processes, ends


def _run(
    rank: int,
    world_size: int,
    port: int,
    end: Connection,
    function: Callable[..., Any],
    arguments: tuple,
) -> None:
    import torch

    torch.set_num_threads(1)
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    values = (rank, rank, world_size, "127.0.0.1", port)
    os.environ.update({name: str(value) for name, value in zip(names, values, strict=True)})
    end.send_bytes(pickle.dumps(function(*arguments)))  # by value: torch would share memory
