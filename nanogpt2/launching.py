"""Several processes on this machine, one a GPU: the speedrun starts torch.distributed's launcher.

The launcher (torchrun) starts the ranks, watches them, and ends all when one fails; what ranks do
for each other lives in ``nanogpt2.training.ranks``. Chapter: zero2.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import uuid
from collections.abc import Sequence

from nanogpt2.machines import cores

SHUTDOWN_SECONDS = 600
"""how long the launcher waits, after a signal, for ranks to finish their step and save; torch's own
30 s are less than a save of the real run takes (``python -m benchmarks.saving``)"""
NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
HANDED_ON = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
"""signals that the launcher hands on to the ranks; Windows has the first two"""


def is_rank() -> bool:
    """Whether torchrun started this process."""
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def rank() -> int:
    """This process's number among all of the run; 0 without torchrun."""
    return int(os.environ.get("RANK", 0)) if is_rank() else 0


def world_size() -> int | None:
    """How many processes the run has, if torchrun started it."""
    return int(os.environ["WORLD_SIZE"]) if is_rank() else None


def local_rank() -> int:
    """This process's number on this machine; 0 without torchrun."""
    return int(os.environ.get("LOCAL_RANK", 0)) if is_rank() else 0


def backend(device: str) -> str:
    """How ranks on devices of this kind reach each other: torch.distributed's name of it."""
    return "nccl" if device == "cuda" else "gloo"


def launch(ranks: int, module: str, arguments: Sequence[str], max_restarts: int = 0) -> int:
    """Run ``python -m module arguments`` as ``ranks`` processes; returns the exit code.

    0 when all ended well, 130 or 143 after SIGINT or SIGTERM (handed on to the ranks, which save),
    else the code of the first rank that failed; one that was killed without a word is named here.
    A lost rank has all of them started again, at most ``max_restarts`` times; they continue from
    the last whole checkpoint.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # ranks tell by themselves who failed, where and why; the launcher would repeat it at length
    for name in logging.root.manager.loggerDict:
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    threads = max(1, cores() // ranks)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SHUTDOWN_SECONDS))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=max_restarts,
        monitor_interval=0.2,
    )
    handlers = {number: signal.getsignal(number) for number in HANDED_ON}
    try:
        elastic_launch(config, sys.executable)("-u", "-m", module, *arguments)
    except SignalException as stopped:
        return 128 + int(stopped.sigval)
    except ChildFailedError as failed:
        number, failure = failed.get_first_failure()
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            print(
                f"error: rank {number} of {ranks} on {socket.gethostname()} was ended by {name} "
                "(SIGKILL often means that memory ran out); "
                "the same command continues from the last checkpoint",
                file=sys.stderr,
            )
            return 1
        return failure.exitcode
    finally:  # torch leaves its own, which raise what nobody here knows
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return 0
