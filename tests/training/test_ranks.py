"""Ranks agree, are quiet, and end together."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
import torch

from nanogpt2.errors import UserError
from nanogpt2.training import watch
from nanogpt2.training.ranks import choose_device, join
from tests.training.ranks import run_ranks, start_ranks
from tests.waiting import PATIENCE, wait_until


def agree() -> dict:
    with join("cpu") as ranks:
        module = torch.nn.Linear(2, 2)
        torch.nn.init.constant_(module.weight, float(ranks.rank + 5))
        ranks.broadcast(module)
        sums = ranks.sum([1.0, float(ranks.rank)])
        return {
            "sums": sums,
            "shared": [ranks.share(lambda n=n: [n, ranks.rank]) for n in range(2)],
            "weight": module.weight.tolist(),
            "seen": ranks.gather("seen", ranks.rank, 10),
        }


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_agree(world_size: int) -> None:
    expected = {
        "sums": [world_size, sum(range(world_size))],
        "shared": [[0, 0], [1, 0]],
        "weight": [[5.0, 5.0], [5.0, 5.0]],
    }
    found = run_ranks(world_size, agree)
    seen = [rank.pop("seen") for rank in found]
    assert seen == [list(range(world_size)), *([rank] for rank in range(1, world_size))]
    assert found == [expected] * world_size


def test_one_process_needs_no_store() -> None:
    with join("cpu") as ranks:
        assert (ranks.sum([2.0]), ranks.share(lambda: 3), ranks.gather("a", 1, 0)) == (
            [2.0],
            3,
            [1],
        )
        assert ranks.is_main and not torch.distributed.is_initialized()


def test_an_exception_of_a_single_process_passes_through() -> None:
    with pytest.raises(KeyError), join("cpu"):
        raise KeyError("mine")


@pytest.mark.parametrize("name", ["gpu7", "cuda:99", "", "meta", "H100"])
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(UserError) as caught:
        choose_device(name)
    if not (name.startswith("cuda") and torch.cuda.is_available()):  # which says how many there are
        assert f"no device {name!r} here" in str(caught.value)
        assert "choose auto or cpu, or what the machine has of cuda, cuda:0" in str(caught.value)
    assert ("a GPU's model" in str(caught.value)) == (name == "H100")


def fail(folder: Path, failure: Exception | None, in_collective: bool) -> None:
    """Rank 1 fails; the others wait where no exception can reach them."""
    rank = os.environ["RANK"]
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / f"{name}{rank}", os.O_WRONLY | os.O_CREAT), descriptor)
    watch.SILENCE_SECONDS = 3.0
    with join("cpu") as ranks:
        print("hello from", ranks.rank, flush=True)
        ranks.watch.strict.set()
        ranks.sum([0.0])
        if ranks.rank == 1:
            if failure is None:
                os.kill(os.getpid(), signal.SIGKILL)
            raise failure
        if in_collective:
            torch.distributed.barrier()
        threading.Event().wait()  # nothing here ends it


def run_failing(
    folder: Path, failure: Exception | None, in_collective: bool
) -> tuple[list[int], list[str], list[str]]:
    """Exit codes, outputs and complaints of three ranks."""
    processes, _ = start_ranks(3, fail, folder, failure, in_collective)
    for process in processes:
        process.join(PATIENCE)
        process.kill()
    read = {n: [(folder / f"{n}{rank}").read_text() for rank in range(3)] for n in ("out", "err")}
    return [process.exitcode for process in processes], read["out"], read["err"]


@pytest.mark.parametrize("in_collective", [False, True])
@pytest.mark.parametrize(
    ("failure", "code", "words"),
    [
        (UserError("no such folder; make one"), 2, "error: rank 1 of 3 on"),
        (ValueError("a bug"), 1, "in fail: ValueError: a bug"),
    ],
)
def test_a_failing_rank_tells_and_all_end(
    tmp_path: Path, failure: Exception, code: int, words: str, in_collective: bool
) -> None:
    codes, outputs, errors = run_failing(tmp_path, failure, in_collective)
    assert codes[1] == code and codes[0] > 0 and codes[2] > 0
    assert outputs == ["hello from 0\n", "", ""], "only rank 0 speaks"
    assert words in errors[1] and str(failure) in errors[1]
    told = [line for text in (errors[0], errors[2]) for line in text.splitlines()]
    assert not [line for line in told if line.startswith("error:")], "only the one that failed"


def test_all_end_with_a_killed_rank(tmp_path: Path) -> None:
    codes, _, errors = run_failing(tmp_path, None, True)
    assert codes == [1, -signal.SIGKILL, 1]
    assert sum("failed at" in text for text in errors) == 1, "one of the survivors tells"


def test_a_silent_rank_is_taken_for_lost(tmp_path: Path) -> None:
    """The others sleep: neither a collective nor an exception tells them of the kill."""
    codes, _, errors = run_failing(tmp_path, None, False)
    assert codes == [1, -signal.SIGKILL, 1]
    assert sum("rank 1 is silent" in text for text in errors) == 1


@pytest.mark.parametrize(
    ("device", "environment", "words"),
    [
        ("cpu", {"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, and RANK is not set"),
        ("cpu", {"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_ADDR is not set"),
        ("cpu", {"WORLD_SIZE": "0"}, "WORLD_SIZE is 0"),
        ("cuda:0", {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, "give --device cuda"),
    ],
)
def test_mistakes_about_ranks_are_a_sentence(
    device: str, environment: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=words), join(device):
        pass


class Still:
    """A store in which the next rank's pulse stands still."""

    looks = 0

    def set(self, key: str, value: str) -> None:
        pass

    def check(self, keys: list[str]) -> bool:
        return keys != [watch.FAILED]

    def get(self, key: str) -> bytes:
        self.looks += 1
        return b"7"


def test_silence_is_counted_in_looks_so_that_a_suspended_job_wakes_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a batch system suspends all ranks: by the clock nobody was heard for that long."""
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(watch, "SILENCE_SECONDS", 0.02)
    store, told = Still(), list[BaseException]()

    def end(error: BaseException) -> None:
        told.append(error)
        looking.closed.set()

    looking = watch.Watch(store, 0, 2, torch.device("cpu"))
    monkeypatch.setattr(looking, "end_all", end)
    wait_until(lambda: store.looks > 30)
    assert not told, "pulses do not count yet"
    seen = store.looks
    looking.strict.set()
    looking.thread.join()
    assert "rank 1 is silent" in str(told[0]) and 20 <= store.looks - seen <= 23
