"""The ranks of a run: who am I, what do all agree on, and what happens when one fails.

One process a GPU, started by torchrun (or one process alone: the same code with world size 1).
Gradients and parameters travel in ``nanogpt2.optim.sharded``; here is the rest: the start, one
small sum a step, and the end. A rank that fails says who, where and why; all others stop within
seconds, whatever they are waiting for. Chapter: zero2.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from nanogpt2.errors import UserError, explain
from nanogpt2.machines import no_device

TIMEOUT = timedelta(minutes=30)
"""how long a rank waits for the others in a collective (rank 0 may be evaluating)"""
POLL_SECONDS = 0.5
SILENCE_SECONDS = 30.0
"""a rank whose pulse stands still for so long during training is taken for lost"""
FAILED = "failed"


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
    _notes: dict[str, str] = field(default_factory=dict)

    @property
    def is_main(self) -> bool:
        """Rank 0 talks, measures and keeps the books."""
        return self.rank == 0

    def sum(self, values: list[float]) -> list[float]:
        """Elementwise sum over the ranks (in float64 where the device has it)."""
        if self.world_size == 1:
            return values
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        total = torch.tensor(values, dtype=dtype, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.sum([0.0])

    def share(self, key: str, value: Any = None) -> Any:
        """Rank 0's JSON ``value`` on every rank. ``key`` must be fresh for each call."""
        if self.world_size == 1:
            return value
        if self.is_main:
            self.store.set(key, json.dumps(value))
        while not self.store.check([key]):  # a blocking get would lock out the watch
            time.sleep(0.02)
        return json.loads(self.store.get(key))

    @contextmanager
    def training(self) -> Iterator[None]:
        """While entered, a rank that falls silent is taken for lost."""
        if self.watch is not None:
            self.watch.strict.set()
        yield
        if self.watch is not None:
            self.watch.strict.clear()

    def post(self, key: str, value: Any) -> None:
        """Leave a JSON ``value`` for ``collect``; needs no other rank, so that any thread may."""
        name = f"{key}/{self.rank}"
        if self.store is None:
            self._notes[name] = json.dumps(value)
        else:
            self.store.set(name, json.dumps(value))

    def collect(self, key: str) -> list[Any]:
        """What the ranks have posted under ``key`` so far."""
        names = [f"{key}/{rank}" for rank in range(self.world_size)]
        if self.store is None:
            return [json.loads(self._notes[name]) for name in names if name in self._notes]
        return [json.loads(self.store.get(name)) for name in names if self.store.check([name])]

    @torch.no_grad()
    def broadcast(self, model: nn.Module) -> None:
        """Give every rank rank 0's parameters: machines may disagree in the last bit of a start."""
        if self.world_size > 1:
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, src=0)


def choose_device(name: str = "auto", local_rank: int = 0) -> torch.device:
    """``auto``: CUDA, else MPS, else the processor. Raises UserError for a device not found."""
    asked = name
    if name == "auto":
        if torch.cuda.is_available():
            name = "cuda"
        else:
            name = "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise no_device(asked) from None
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if count == 0:
            raise no_device(asked)
        index = local_rank if device.index is None else device.index
        if index >= count:
            raise UserError(
                f"rank {local_rank} of this machine needs GPU {index} and {count} were found; "
                "start as many ranks as there are GPUs, or choose --device cpu"
            )
        torch.cuda.set_device(index)
        return torch.device("cuda", index)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise no_device(asked)
    if device.type not in ("cuda", "mps", "cpu"):  # torch knows more, and this project does not
        raise no_device(asked)
    return device


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
    UserError, 130 for Ctrl-C, else 1; alone, the exception passes through.
    """
    world_size, local_rank = _number("WORLD_SIZE", 1), _number("LOCAL_RANK", 0)
    chosen = choose_device(device, local_rank)
    if world_size == 1:
        yield Ranks(0, 0, 1, chosen)
        return
    store, rank, world_size = next(iter(dist.rendezvous("env://", timeout=TIMEOUT)))
    # the launcher keeps one store over all restarts, and with it the word of who failed before
    store = dist.PrefixStore(f"attempt{_number('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    ranks = Ranks(rank, local_rank, world_size, chosen, dist.PrefixStore("nanogpt2", store))
    watch = ranks.watch = Watch(ranks)
    try:
        with _quiet(ranks):
            dist.init_process_group(
                "nccl" if chosen.type == "cuda" else "gloo",
                store=dist.PrefixStore("groups", store),
                rank=rank,
                world_size=world_size,
                timeout=TIMEOUT,
                device_id=chosen if chosen.type == "cuda" else None,
            )
            yield ranks
            watch.close()
            ranks.barrier()
            dist.destroy_process_group()
    except BaseException as error:  # SystemExit and KeyboardInterrupt must stop the others too
        _end_all(ranks, error)


@contextmanager
def _quiet(ranks: Ranks) -> Iterator[None]:
    """Silence every rank but the first."""
    if ranks.is_main:
        yield
        return
    stdout = sys.stdout
    with (
        open(os.devnull, "w", encoding="utf-8", errors="replace") as nowhere,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        sys.stdout = nowhere
        try:
            yield
        finally:
            sys.stdout = stdout


def _end_all(ranks: Ranks, error: BaseException) -> None:
    """Tell of ``error`` unless another rank was first, make all ranks end, and end this one."""
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif isinstance(error, KeyboardInterrupt):
        code = 130
    else:
        code = 1 if explain(error) is None else 2
    if ranks.watch is not None:
        ranks.watch.closed.set()
    first, mine = True, f"{ranks.rank} {code}"
    with suppress(Exception):  # the store's host may be the machine that was lost
        told = ranks.store.compare_set(FAILED, "", mine).decode()
        first, code = told == mine, _code_of(told)
    if first and code not in (0, 130, 143):
        print(_describe(ranks, error), file=sys.stderr, flush=True)
    sys.stdout.flush()
    _leave(ranks, code)


def _code_of(failure: str) -> int:
    """The exit code in "rank code", the word of the first rank that failed: all end with it."""
    return int(failure.split()[1])


def _leave(ranks: Ranks, code: int) -> None:
    """End this process now: destroy_process_group would wait for ranks that wait for us."""
    if ranks.is_main:  # without torchrun it holds the store, in which the others look who failed
        time.sleep(2 * POLL_SECONDS)
    os._exit(code)


def _describe(ranks: Ranks, error: BaseException) -> str:
    """Who, where and why."""
    who = f"rank {ranks.rank} of {ranks.world_size} on {socket.gethostname()} ({ranks.device})"
    why = explain(error)
    if why is not None:
        return f"error: {who}: {why}"
    frames = traceback.extract_tb(error.__traceback__)
    mine = [f for f in frames if "nanogpt2" in f.filename and f.filename != __file__]
    ours = mine or frames
    where = f"{ours[-1].filename}:{ours[-1].lineno} in {ours[-1].name}" if ours else "?"
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return f"{trace}error: {who} failed at {where}: {type(error).__name__}: {error}"


class Watch:
    """A thread that ends this process when another rank has failed or fallen silent.

    Needed because a rank that waits in a collective runs no Python: no exception of another rank
    reaches it, and NCCL would wait for a lost machine until its timeout. Each rank writes a pulse
    to the store and reads that of the next one, in a ring.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.strict = threading.Event()
        """set while pulses count: not in long calls that hold Python's lock (training BPE)"""
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True, name="watch")
        self.thread.start()

    def _run(self) -> None:
        ranks = self.ranks
        following = (ranks.rank + 1) % ranks.world_size
        pulse, heard, last = 0, b"", time.monotonic()
        while not self.closed.wait(POLL_SECONDS):
            try:
                ranks.store.set(f"pulse/{ranks.rank}", str(pulse := pulse + 1))
                failed = ranks.store.get(FAILED) if ranks.store.check([FAILED]) else b""
                known = ranks.store.check([f"pulse/{following}"])
                now = ranks.store.get(f"pulse/{following}") if known else b""
            except Exception as error:
                _end_all(ranks, ConnectionError(f"the store of the run is gone: {error}"))
            if failed:
                time.sleep(POLL_SECONDS)  # it may be us: let the main thread tell what happened
                _leave(ranks, _code_of(failed.decode()))
            if now != heard or not self.strict.is_set():
                heard, last = now, time.monotonic()
            elif time.monotonic() - last > SILENCE_SECONDS:
                _end_all(ranks, TimeoutError(f"rank {following} is silent; was it killed?"))

    def close(self) -> None:
        """Stop watching."""
        self.closed.set()
        self.thread.join()
