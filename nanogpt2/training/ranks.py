"""The ranks of a run: who am I, and what do all agree on.

One process a GPU, started by torchrun (or one process alone: the same code with world size 1).
Gradients and parameters travel in ``nanogpt2.optim.sharded``; here is the rest: the start, one
small sum a step, and the end (``watch`` has what happens when one fails). Chapter: zero2.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nanogpt2.errors import UserError
from nanogpt2.launching import backend
from nanogpt2.machines import no_device
from nanogpt2.training.watch import Watch

TIMEOUT = timedelta(minutes=30)
"""how long a rank waits for the others in a collective; in ``share`` it waits for ever"""
POLL_SECONDS = 0.02
"""between two looks into the store"""
_joined = count()
"""how often this process has joined: the launcher's store outlives it, with what was said there"""


@dataclass
class Ranks:
    """This process among all processes of the run."""

    rank: int
    local_rank: int
    """its number on this machine, and so its GPU"""
    world_size: int
    device: torch.device
    store: Any = None
    """key-value store that all ranks reach; None with one process"""
    watch: Watch | None = None
    """ends this process when another rank is lost; None with one process"""
    _fresh: int = 0

    @property
    def is_main(self) -> bool:
        """Rank 0 talks, measures and keeps the books."""
        return self.rank == 0

    def sum(self, values: Sequence[float | Tensor]) -> list[float]:
        """Elementwise sum over the ranks, in float64 where the device has it.

        Numbers that are still on the device travel with the others: it is waited for once.
        """
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        numbers = [0.0 if isinstance(value, Tensor) else value for value in values]
        total = torch.tensor(numbers, dtype=dtype, pin_memory=self.device.type == "cuda")
        total = total.to(self.device, non_blocking=True)
        for place, value in enumerate(values):
            if isinstance(value, Tensor):
                total[place] = value
        if self.world_size > 1:
            dist.all_reduce(total)
        return total.tolist()

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.sum([0.0])

    def fresh_key(self) -> str:
        """A key of the store that was never used; all ranks ask for it, in the same order."""
        self._fresh += 1
        return f"fresh/{self._fresh}"

    def told(self, key: str, mine: bool) -> bool:
        """Whether any rank has said so under ``key``; no collective, and nobody waits."""
        if self.world_size == 1:
            return mine
        if mine:
            self.store.set(key, "1")
        return self.store.check([key])

    def share(self, make: Callable[[], Any]) -> Any:
        """What ``make`` gives on rank 0, as JSON, on every rank. All of them call it.

        It may take as long as it likes there: the others wait outside of any collective.
        """
        if self.world_size == 1:
            return make()
        key = self.fresh_key()
        if self.is_main:
            self.store.set(key, json.dumps(make()))
        while not self.store.check([key]):  # a blocking get would lock out the watch
            time.sleep(POLL_SECONDS)
        return json.loads(self.store.get(key))

    @contextmanager
    def training(self) -> Iterator[None]:
        """While entered, a rank that falls silent is taken for lost."""
        if self.watch is not None:
            self.watch.strict.set()
        yield
        if self.watch is not None:
            self.watch.strict.clear()

    def gather(self, key: str, value: Any, seconds: float) -> list[Any]:
        """Every rank's JSON ``value``, for rank 0, which waits so long for them; else its own.

        No collective, so that any thread may call it. ``key`` must be fresh for each call.
        """
        if self.world_size == 1:
            return [value]
        self.store.set(f"{key}/{self.rank}", json.dumps(value))
        if not self.is_main:
            return [value]
        names = [f"{key}/{rank}" for rank in range(self.world_size)]
        deadline = time.monotonic() + seconds
        while not self.store.check(names):
            if time.monotonic() > deadline:
                raise TimeoutError(f"a rank has not reported {key} in {seconds:.0f} s")
            time.sleep(POLL_SECONDS)
        return [json.loads(self.store.get(name)) for name in names]

    @torch.no_grad()
    def broadcast(self, model: nn.Module) -> None:
        """Give every rank rank 0's parameters: machines may disagree in the last bit of a start."""
        if self.world_size > 1:
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, src=0)


ALONE = Ranks(0, 0, 1, torch.device("cpu"))
"""one process, for whom "all ranks" is itself"""


def choose_device(name: str = "auto", local_rank: int = 0) -> torch.device:
    """``auto``: CUDA, else MPS, else the processor. Raises UserError for a device not found."""
    asked, has_mps = name, torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise no_device(asked) from None
    count = torch.cuda.device_count() if device.type == "cuda" else 0
    # torch knows more types, and this project does not
    if not {"cuda": count, "mps": has_mps, "cpu": True}.get(device.type):
        raise no_device(asked)
    if device.type != "cuda":
        return device
    index = local_rank if device.index is None else device.index
    if index >= count:
        raise UserError(
            f"rank {local_rank} of this machine needs GPU {index} and {count} were found; "
            "start as many ranks as there are GPUs, or choose --device cpu"
        )
    _keep_memory_whole()
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def _keep_memory_whole() -> None:
    """Let torch's allocator grow its blocks instead of leaving gaps between them.

    Read at the first allocation on a GPU. A choice that the user has made stays; Windows has none.
    """
    chosen = {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & set(os.environ)
    if not chosen and sys.platform == "linux":
        os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"


def _number(name: str, default: int) -> int:
    try:
        return int(os.environ.get(name, default))
    except ValueError:
        raise UserError(f"{name} is {os.environ[name]!r}; torchrun sets it to a number") from None


@contextmanager
def join(device: str = "auto") -> Iterator[Ranks]:
    """Be one of torchrun's ranks (by its environment variables), or alone without torchrun.

    Ranks but the first are silenced. When the body fails under torchrun, the first rank to fail
    tells who, where and why on stderr, and every process ends: this one with exit code 2 for a
    UserError, 130 for Ctrl-C, else 1; alone, the exception passes through. UserError, too, where
    torchrun's variables are incomplete, or one GPU is named for several ranks.
    """
    world_size, local_rank = _number("WORLD_SIZE", 1), _number("LOCAL_RANK", 0)
    if device.startswith("cuda:") and _number("LOCAL_WORLD_SIZE", 1) > 1:
        raise UserError("each rank of a machine needs a GPU of its own; give --device cuda")
    chosen = choose_device(device, local_rank)
    if world_size == 1:
        yield Ranks(0, 0, 1, chosen)
        return
    lost = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if lost or world_size < 1:
        raise UserError(
            f"WORLD_SIZE is {world_size}, and {lost[0] if lost else 'no rank'} is not set; start "
            "several ranks with torchrun, or unset WORLD_SIZE"
        )
    store, rank, world_size = next(iter(dist.rendezvous("env://", timeout=TIMEOUT)))
    # the launcher keeps one store over all restarts, and with it the word of who failed before
    attempt = f"attempt{_number('TORCHELASTIC_RESTART_COUNT', 0)}.{next(_joined)}"
    store = dist.PrefixStore(attempt, store)
    words = dist.PrefixStore("nanogpt2", store)
    watch = Watch(words, rank, world_size, chosen)
    try:
        with _quiet() if rank else nullcontext():
            dist.init_process_group(
                backend(chosen.type),
                store=dist.PrefixStore("groups", store),
                rank=rank,
                world_size=world_size,
                timeout=TIMEOUT,
                device_id=chosen if chosen.type == "cuda" else None,
            )
            ranks = Ranks(rank, local_rank, world_size, chosen, words, watch)
            yield ranks
            ranks.share(lambda: None)  # the first one may be writing a report yet
            watch.close()
            ranks.barrier()
            dist.destroy_process_group()
    except BaseException as error:  # SystemExit and KeyboardInterrupt must stop the others too
        watch.end_all(error)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence standard output and warnings."""
    with (
        open(os.devnull, "w", encoding="utf-8", errors="replace") as nowhere,
        redirect_stdout(nowhere),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield
