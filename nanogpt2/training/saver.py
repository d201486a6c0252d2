"""Saving without standing still: the step waits for a copy to host memory, a thread does the rest.

Each rank writes its own share; rank 0 also writes the model and, when all ranks have reported their
files, the marker that makes the checkpoint whole. Chapter: loop.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
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
Writers = dict[str, Callable[[Path], None]]
"""by the name of a file, what writes it"""


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

    def said(self) -> str:
        """Which checkpoint is left, for the end of a sentence."""
        newest = self.settle()
        return f"the last good checkpoint is {newest}" if newest else "there is no checkpoint yet"

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
        tensors: dict[str, Tensor] = {}
        ranges: dict[str, tuple[int, int]] = {}
        for name, start, stop, share in optimizer.shard_state():
            ranges[name] = (start, stop)
            tensors |= {f"{name}/{key}": value for key, value in share.items()}
        # one entry: safetensors writes several in any order, and equal runs give equal files
        place = json.dumps({"step": step, "ranges": ranges, "data": data}, separators=(",", ":"))
        name = shard_file(self.ranks.rank, self.ranks.world_size)
        writers: Writers = {
            name: partial(write_tensors, tensors=self._copied(tensors), metadata={"state": place})
        }
        if self.ranks.is_main:
            weights = self._copied(model.state_dict())
            whole = {**state, "step": step, "world_size": self.ranks.world_size}
            writers[MODEL_FILE] = partial(write_tensors, tensors=weights, metadata={"format": "pt"})
            writers[STATE_FILE] = partial(write_json, value=whole)
        self.last = self.thread.submit(self._write, self.ranks.fresh_key(), step, writers)

    def _copied(self, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies of all tensors in host memory, pinned for CUDA; returns when they are done."""
        copies = {}
        for name, tensor in named.items():
            if name not in self.buffers:
                self.buffers[name] = torch.empty(
                    tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda
                )
            buffer = self.buffers[name]
            copies[name] = buffer.copy_(tensor.detach(), non_blocking=tensor.is_cuda)
        if torch.cuda.is_initialized():
            torch.cuda.current_stream().synchronize()
        return copies

    def _write(self, key: str, step: int, writers: Writers) -> None:
        """Write this rank's files; rank 0 marks the whole when all have, or tells why not."""
        folder = checkpoint_folder(self.run, step)
        unfinished = folder.with_name(folder.name + PARTIAL)
        report: dict[str, Any] = {"files": {}, "failure": None}
        failure: Exception | None = None
        try:
            for name, write in writers.items():
                write(unfinished / name)
                report["files"][name] = describe_file(unfinished / name)
        except Exception as error:
            failure, report["failure"] = error, explain(error) or repr(error)
        try:
            reports = self.ranks.gather(key, report, WAIT_SECONDS)
            for report in reports:
                if report["failure"]:
                    raise failure or UserError(report["failure"])
            if self.ranks.is_main:
                files = {name: facts for r in reports for name, facts in r["files"].items()}
                mark_complete(unfinished, files, folder)
            self.newest = folder
            if self.ranks.is_main:
                retain(self.run, self.keep_last, dict(self.scores))
        except Exception as error:
            if self.ranks.is_main:
                remove_checkpoint(unfinished)
                why = explain(error) or f"{type(error).__name__}: {error}"
                self.tell(f"{folder.name} was not saved ({why}); training goes on")
            raise


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
