"""Saving without standing still: the step waits for a copy to host memory, a thread does the rest.

Each rank writes its own share; rank 0 also writes the model and, when all ranks have reported their
files, the marker that makes the checkpoint whole. Chapter: loop.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nanogpt2.errors import UserError, explain
from nanogpt2.files import write_json
from nanogpt2.optim import MuonAdamW
from nanogpt2.training.checkpoint import (
    MODEL_FILE,
    PARTIAL,
    STATE_FILE,
    checkpoint_folder,
    describe_file,
    list_checkpoints,
    mark_complete,
    remove_checkpoint,
    shard_file,
    step_of,
    write_tensors,
)
from nanogpt2.training.ranks import Ranks

WAIT_SECONDS = 600.0
"""how long rank 0 waits for the files of the others"""
Files = dict[str, tuple[dict[str, Tensor], dict[str, str]]]
"""name -> tensors and metadata"""


class Saver:
    """Writes the checkpoints of a run in the background, one at a time.

    A save that fails (a full disk) leaves the checkpoints before it untouched, is told once, and
    raises only from ``wait``; a run need not die of a full disk that somebody may clear.
    """

    def __init__(
        self, run: Path, ranks: Ranks, keep_last: int = 2, tell: Callable[[str], None] = print
    ) -> None:
        self.run, self.ranks, self.keep_last, self.tell = run, ranks, keep_last, tell
        self.scores: dict[int, float] = {}
        """validation bits per byte by step: the checkpoint of the lowest is kept"""
        self.newest: Path | None = None
        """the last checkpoint that this rank knows to be whole"""
        self.thread = ThreadPoolExecutor(1, "save")
        self.last: Future[None] | None = None
        """the save under way, or the one before"""
        self.buffers: dict[str, Tensor] = {}
        """host memory for one snapshot, kept from save to save"""
        self.count = 0

    @property
    def busy(self) -> bool:
        """Whether a save is under way."""
        return self.last is not None and not self.last.done()

    def wait(self) -> None:
        """Block until the save under way is done; raises what the last one failed with."""
        if self.last is not None:
            self.last.result()

    def settle(self) -> Path | None:
        """Let the save under way end, well or not; the newest whole checkpoint."""
        with suppress(Exception):
            self.wait()
        return self.newest

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
        self.settle()
        self.count += 1
        tensors: dict[str, Tensor] = {}
        ranges: dict[str, tuple[int, int]] = {}
        for name, start, stop, share in optimizer.shard_state():
            ranges[name] = (start, stop)
            tensors |= {f"{name}/{key}": value for key, value in share.items()}
        # one entry: safetensors writes several in any order, and equal runs give equal files
        place = json.dumps({"step": step, "ranges": ranges, "data": data}, separators=(",", ":"))
        name = shard_file(self.ranks.rank, self.ranks.world_size)
        files: Files = {name: (self._copied(tensors.items()), {"state": place})}
        if self.ranks.is_main:
            files[MODEL_FILE] = (self._copied(model.state_dict().items()), {"format": "pt"})
        whole = {**state, "step": step, "world_size": self.ranks.world_size}
        self.last = self.thread.submit(self._write, f"saved/{self.count}", step, files, whole)

    def _copied(self, named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
        """Copies of all tensors in host memory, pinned for CUDA; returns when they are done."""
        copies = {}
        for name, tensor in named:
            if name not in self.buffers:
                self.buffers[name] = torch.empty(
                    tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda
                )
            buffer = self.buffers[name]
            copies[name] = buffer.copy_(tensor.detach(), non_blocking=tensor.is_cuda)
        if torch.cuda.is_initialized():
            torch.cuda.current_stream().synchronize()
        return copies

    def _write(self, key: str, step: int, files: Files, state: dict[str, Any]) -> None:
        """Write this rank's share and report it; rank 0 also completes the checkpoint."""
        folder = checkpoint_folder(self.run, step)
        partial = folder.with_name(folder.name + PARTIAL)
        written: dict[str, Any] = {}
        failure: Exception | None = None
        try:
            for name, (tensors, metadata) in files.items():
                write_tensors(partial / name, tensors, metadata)
                written[name] = describe_file(partial / name)
            if self.ranks.is_main:
                write_json(partial / STATE_FILE, state)
                written[STATE_FILE] = describe_file(partial / STATE_FILE)
        except Exception as error:
            failure = error
        said = failure and (explain(failure) or repr(failure))
        self.ranks.post(key, {"files": written, "failure": said})
        if self.ranks.is_main:
            self._complete(key, partial, folder, failure)
        elif failure is not None:
            raise failure
        else:
            self.newest = folder

    def _complete(self, key: str, partial: Path, folder: Path, failure: Exception | None) -> None:
        """When every rank has written its share, mark the checkpoint as whole, or tell why not."""
        try:
            reports = self._reports(key)
            if failure is not None:
                raise failure
            for report in reports:
                if report["failure"]:
                    raise UserError(report["failure"])
            mark_complete(partial, {k: v for r in reports for k, v in r["files"].items()}, folder)
            self.newest = folder
            retain(self.run, self.keep_last, dict(self.scores))
        except Exception as error:
            remove_checkpoint(partial)
            why = explain(error) or f"{type(error).__name__}: {error}"
            self.tell(f"{folder.name} was not saved ({why}); training goes on")
            raise

    def _reports(self, key: str) -> list[dict[str, Any]]:
        """What all ranks have written, as soon as they have."""
        deadline = time.monotonic() + WAIT_SECONDS
        while len(reports := self.ranks.collect(key)) < self.ranks.world_size:
            if time.monotonic() > deadline:
                raise TimeoutError(f"a rank has not written its share in {WAIT_SECONDS:.0f} s")
            time.sleep(0.02)
        return reports


def retain(run: Path, keep_last: int, scores: Mapping[int, float]) -> None:
    """Delete all checkpoints but the last ``keep_last`` and the one of the lowest score.

    ``scores`` has the validation bits per byte of the steps after which it was measured.
    """
    folders = list_checkpoints(run)
    measured = [folder for folder in folders if step_of(folder) in scores]
    best = min(measured, key=lambda folder: scores[step_of(folder)], default=None)
    for folder in folders[keep_last:]:
        if folder != best:
            remove_checkpoint(folder)
