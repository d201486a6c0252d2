"""What happens when a rank fails: it says who, where and why, and all others stop in seconds.

Whatever they are waiting for: a rank that waits in a collective runs no Python, so that no
exception of another rank reaches it, and NCCL would wait for a lost machine until its timeout.
Chapter: zero2.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import torch

from nanogpt2.errors import explain

POLL_SECONDS = 0.5
SILENCE_SECONDS = 30.0
"""a rank whose pulse stands still for so long during training is taken for lost"""
FAILED = "failed"
_OWN = {str(Path(__file__).with_name(name)) for name in ("ranks.py", "watch.py")}
"""files in which an error is only noticed"""


class Watch:
    """A thread that ends this process when another rank has failed or fallen silent.

    Each rank writes a pulse to the store and reads that of the next one, in a ring.
    """

    def __init__(self, store: Any, rank: int, world_size: int, device: torch.device) -> None:
        self.store, self.rank, self.world_size, self.device = store, rank, world_size, device
        self.strict = threading.Event()
        """set while pulses count: not in long calls that hold Python's lock (training BPE)"""
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True, name="watch")
        self.thread.start()

    def _run(self) -> None:
        following = (self.rank + 1) % self.world_size
        # silence is counted in looks, not by the clock: a job that a batch system suspended as a
        # whole would else find, on waking, that nobody had been heard for long
        pulse, heard, silent = 0, b"", 0
        while not self.closed.wait(POLL_SECONDS):
            try:
                self.store.set(f"pulse/{self.rank}", str(pulse := pulse + 1))
                failed, now = self._read(FAILED), self._read(f"pulse/{following}")
            except Exception as error:
                self.end_all(ConnectionError(f"the store of the run is gone: {error}"))
            if failed:
                time.sleep(POLL_SECONDS)  # it may be us: let the main thread tell what happened
                self._leave(_code_of(failed.decode()))
            moved = now != heard or not self.strict.is_set()
            heard, silent = now, 0 if moved else silent + 1
            if silent * POLL_SECONDS > SILENCE_SECONDS:
                self.end_all(TimeoutError(f"rank {following} is silent; was it killed?"))

    def _read(self, key: str) -> bytes:
        """What the store has; a ``get`` of what is not there yet would block."""
        return self.store.get(key) if self.store.check([key]) else b""

    def close(self) -> None:
        """Stop watching."""
        self.closed.set()
        self.thread.join()

    def end_all(self, error: BaseException) -> NoReturn:
        """Tell of ``error`` unless another rank was first, make all ranks end, and end this one."""
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        elif isinstance(error, KeyboardInterrupt):
            code = 130
        else:
            code = 1 if explain(error) is None else 2
        self.closed.set()
        first, mine = True, f"{self.rank} {code}"
        with suppress(Exception):  # the store's host may be the machine that was lost
            told = self.store.compare_set(FAILED, "", mine).decode()
            first, code = told == mine, _code_of(told)
        if first and code not in (0, 130, 143):
            print(self._describe(error), file=sys.stderr, flush=True)
        sys.stdout.flush()
        self._leave(code)

    def _leave(self, code: int) -> NoReturn:
        """End this process now: destroy_process_group would wait for ranks that wait for us."""
        if self.rank == 0:  # without torchrun it holds the store, in which others look who failed
            time.sleep(2 * POLL_SECONDS)
        os._exit(code)

    def _describe(self, error: BaseException) -> str:
        """Who, where and why."""
        who = f"rank {self.rank} of {self.world_size} on {socket.gethostname()} ({self.device})"
        why = explain(error)
        if why is not None:
            return f"error: {who}: {why}"
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f for f in frames if "nanogpt2" in f.filename and f.filename not in _OWN]
        here = ours or frames
        where = f"{here[-1].filename}:{here[-1].lineno} in {here[-1].name}" if here else "?"
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        return f"{trace}error: {who} failed at {where}: {type(error).__name__}: {error}"


def _code_of(failure: str) -> int:
    """The exit code in "rank code", the word of the first rank that failed: all end with it."""
    return int(failure.split()[1])
