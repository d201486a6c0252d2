"""Saving without standing still: the step waits for a copy to host memory, a thread does the rest.

Each rank writes its own share; rank 0 also writes the model and, when all ranks have reported their
files, the marker that makes the checkpoint whole. Chapter: loop.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nanogpt2.errors import explain
from nanogpt2.files import write_json
from nanogpt2.optim import MuonAdamW
from nanogpt2.training.distributed import Ranks
from nanogpt2.training.storage import (
    MODEL_FILE,
    PARTIAL,
    STATE_FILE,
    checkpoint_folder,
    describe_file,
    dump_json,
    mark_complete,
    remove_checkpoint,
    retain,
    write_tensors,
)

WAIT_SECONDS = 600.0
"""how long rank 0 waits for the files of the others"""


def shard_file(rank: int, world_size: int) -> str:
    """Name of a rank's share."""
    return f"optimizer_rank{rank:05d}_of_{world_size:05d}.safetensors"


class HostCopies:
    """Host memory for one snapshot, kept from save to save; pinned on CUDA, for fast copies."""

    def __init__(self) -> None:
        self.buffers: dict[str, Tensor] = {}

    def take(self, named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
        """Copies of all tensors; returns when they are done."""
        copies, on_cuda = {}, False
        for name, tensor in named:
            buffer = self.buffers.get(name)
            if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
                buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
                self.buffers[name] = buffer
            copies[name] = buffer.copy_(tensor.detach(), non_blocking=tensor.is_cuda)
            on_cuda = on_cuda or tensor.is_cuda
        if on_cuda:
            torch.cuda.current_stream().synchronize()
        return copies


class Saver:
    """Writes the checkpoints of a run in the background, one at a time.

    A save that fails (a full disk) leaves the checkpoints before it untouched, is told once, and
    raises only from ``wait``; a run need not die of a full disk that somebody may clear.
    """

    def __init__(
        self, run: Path, ranks: Ranks, keep_last: int = 2, tell: Callable[[str], None] = print
    ) -> None:
        self.run, self.ranks, self.keep_last, self.tell = run, ranks, keep_last, tell
        self.copies = HostCopies()
        self.thread: threading.Thread | None = None
        self.error: Exception | None = None
        self.scores: dict[int, float] = {}
        """validation bits per byte by step: the checkpoint of the lowest is kept"""
        self.newest: Path | None = None
        """the last checkpoint that this rank knows to be whole"""
        self.count = 0

    @property
    def busy(self) -> bool:
        """Whether a save is under way."""
        return self.thread is not None and self.thread.is_alive()

    def save(
        self,
        step: int,
        model: nn.Module,
        optimizer: MuonAdamW,
        state: Mapping[str, Any],
        data: Mapping[str, Any],
    ) -> None:
        """Copy everything to host memory and write it in the background; called by every rank.

        ``state`` goes into state.json (rank 0's), ``data`` is this rank's position in the data.
        Waits first for a save that is still under way: ask ``busy`` to avoid that.
        """
        self._join()
        self.error = None
        tensors: dict[str, Tensor] = {}
        ranges: dict[str, tuple[int, int]] = {}
        for name, start, stop, shares in optimizer.shard_state():
            ranges[name] = (start, stop)
            tensors |= {f"{name}/{key}": value for key, value in shares.items()}
        copied = self.copies.take(tensors.items())
        weights = {}
        if self.ranks.is_main:
            named = ((f"model:{name}", tensor) for name, tensor in model.state_dict().items())
            weights = {k.removeprefix("model:"): v for k, v in self.copies.take(named).items()}
        # one entry: safetensors writes several in any order, and equal runs give equal files
        metadata = {"state": dump_json({"step": step, "ranges": ranges, "data": data})}
        whole = {**state, "step": step, "world_size": self.ranks.world_size}
        self.count += 1
        self.thread = threading.Thread(
            target=self._write,
            args=(step, self.count, copied, metadata, weights, whole),
            name=f"save step {step}",
        )
        self.thread.start()

    def wait(self) -> None:
        """Block until the save under way is done; raises what it failed with."""
        self._join()
        if self.error is not None:
            raise self.error

    def settle(self) -> Path | None:
        """Let the save under way end, well or not; the newest whole checkpoint."""
        self._join()
        return self.newest

    @contextmanager
    def settled(self) -> Iterator[None]:
        """However the body ends, the save under way is let end first."""
        try:
            yield
        finally:
            self._join()

    def _join(self) -> None:
        if self.thread is not None:
            self.thread.join()
            self.thread = None

    def _write(
        self,
        step: int,
        count: int,
        tensors: dict[str, Tensor],
        metadata: dict[str, str],
        weights: dict[str, Tensor],
        state: dict[str, Any],
    ) -> None:
        folder = checkpoint_folder(self.run, step)
        partial = folder.with_name(folder.name + PARTIAL)
        report: dict[str, Any] = {}
        try:
            partial.mkdir(parents=True, exist_ok=True)
            path = partial / shard_file(self.ranks.rank, self.ranks.world_size)
            write_tensors(path, tensors, metadata)
            report[path.name] = describe_file(path)
            if self.ranks.is_main:
                write_tensors(partial / MODEL_FILE, weights, {"format": "pt"})
                write_json(partial / STATE_FILE, state)
                for name in (MODEL_FILE, STATE_FILE):
                    report[name] = describe_file(partial / name)
        except Exception as error:
            self.error = error
        failure = None if self.error is None else explain(self.error) or repr(self.error)
        self.ranks.post(f"saved/{count}", {"files": report, "failure": failure})
        if self.ranks.is_main:
            self._complete(count, partial, folder)
        elif self.error is None:
            self.newest = folder

    def _complete(self, count: int, partial: Path, folder: Path) -> None:
        """Rank 0: when every rank has written its share, mark the checkpoint as whole."""
        try:
            deadline = time.monotonic() + WAIT_SECONDS
            while len(reports := self.ranks.collect(f"saved/{count}")) < self.ranks.world_size:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"a rank has not written its share in {WAIT_SECONDS:.0f} s")
                time.sleep(0.02)
            if self.error is not None:
                raise self.error
            for report in reports:
                if report["failure"]:
                    raise OSError(report["failure"])
            files = {name: facts for r in reports for name, facts in r["files"].items()}
            mark_complete(partial, files, folder)
            self.newest = folder
            retain(self.run, self.keep_last, dict(self.scores))
        except Exception as error:
            self.error = error
            remove_checkpoint(partial)
            why = explain(error) or f"{type(error).__name__}: {error}"
            self.tell(f"{folder.name} was not saved ({why}); training goes on")
