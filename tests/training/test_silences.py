"""Whatever one rank does for long, the others wait for it, and no run reads another one's words."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from nanogpt2.errors import UserError
from nanogpt2.training import ranks as ranks_module
from nanogpt2.training import start, watch
from nanogpt2.training.checkpoint import list_checkpoints, verify
from nanogpt2.training.ranks import join
from nanogpt2.training.trainer import train
from tests.drills.tiny_run import TinyData, curve
from tests.training.ranks import run_ranks


def one_takes_long() -> list[Any]:
    """Rank 0 downloads, say, three times as long as a collective waits, and reports at the end."""
    ranks_module.TIMEOUT, watch.SILENCE_SECONDS = timedelta(seconds=1), 1.0
    with join("cpu") as ranks:
        heard = [ranks.share(lambda: time.sleep(3) or "fetched")]
        with ranks.training():
            heard.append(ranks.share(lambda: time.sleep(3) or "measured"))
        heard.append(ranks.sum([1.0]))
        if ranks.is_main:
            time.sleep(3)
    return heard


def test_a_rank_that_takes_long_is_waited_for() -> None:
    assert run_ranks(2, one_takes_long) == [["fetched", "measured", [2.0]]] * 2


def two_runs(first: Any, second: Any) -> None:
    with join("cpu") as ranks:
        for run in (first, second):
            train(run, ranks=ranks)


def test_a_second_run_in_one_process_does_not_read_the_firsts_words(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    """Its files were taken for those of the first: other sizes, another digest."""
    runs = [tiny_data.settings(tmp_path / str(n), steps=3, seed=n, eval_every=-1) for n in (1, 2)]
    run_ranks(2, two_runs, *runs)
    for n in (1, 2):
        newest = list_checkpoints(tmp_path / str(n))[0]
        assert newest.name == "step_000003"
        verify(newest)
    assert curve(tmp_path / "1") != curve(tmp_path / "2")


def join_twice(port: int) -> list[Any]:
    """Under a launcher, whose store outlives what a process said in it."""
    os.environ.update(MASTER_PORT=str(port), TORCHELASTIC_USE_AGENT_STORE="True")
    heard = []
    for word in ("once", "twice"):
        with join("cpu") as ranks:
            heard.append(ranks.share(lambda word=word: word))
    return heard


def test_who_joins_again_hears_what_is_said_now() -> None:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    assert run_ranks(2, join_twice, store.port) == [["once", "twice"]] * 2


def look(folder: Path, hidden: int) -> str:
    """A folder whose files rank 1 sees only at its look after so many."""
    looks: list[int] = []
    exists = Path.exists

    def late(path: Path) -> bool:
        looks.append(1)
        return len(looks) > hidden and exists(path)

    start.SHARED_SECONDS = 1.0 if hidden > 99 else 60.0
    with join("cpu") as ranks, pytest.MonkeyPatch.context() as patched:
        if ranks.rank == 1:
            patched.setattr(Path, "exists", late)
        try:
            start._require_shared(folder, ranks)
        except UserError as error:
            return str(error)
    return "seen"


def test_a_network_disk_that_shows_a_file_late_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    assert run_ranks(2, look, tmp_path, 3) == ["seen", "seen"]


def test_the_launcher_leaves_signals_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.distributed.launcher.api as api

    from nanogpt2 import launching

    before = signal.getsignal(signal.SIGINT)

    def elastic_launch(*_: Any) -> Callable[..., None]:
        return lambda *_: signal.signal(signal.SIGINT, lambda *_: None) and None

    monkeypatch.setattr(api, "elastic_launch", elastic_launch)
    assert launching.launch(2, "nowhere", []) == 0
    assert signal.getsignal(signal.SIGINT) is before


def test_the_launcher_gives_ranks_the_time_of_a_save(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.distributed.launcher.api as api

    from nanogpt2 import launching

    seen: list[Any] = []
    name = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
    monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(api, "elastic_launch", lambda config, _: lambda *a: seen.append(config))
    assert launching.launch(2, "nowhere", []) == 0
    assert seen[0].shutdown_timeout == launching.SHUTDOWN_SECONDS >= 600
    monkeypatch.setenv(name, "70")  # a user's own word counts
    launching.launch(2, "nowhere", [])
    assert seen[1].shutdown_timeout == 70
