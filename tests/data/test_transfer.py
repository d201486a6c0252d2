"""One file, from a server that does everything wrong."""

from __future__ import annotations

import hashlib
import multiprocessing
import random
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from nanogpt2.data import transfer
from nanogpt2.data.transfer import Remote, fetch, in_parallel
from nanogpt2.errors import UserError
from tests.data.bad_server import leftovers, serving
from tests.waiting import PATIENCE, wait_until

CONTENT = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def remote(url: str, folder: Path, name: str = "file", sha256: str | None = SHA256) -> Remote:
    return Remote(f"{url}/{name}", folder / name, len(CONTENT), sha256)


@pytest.mark.parametrize(
    "script",
    [
        ["ok"],
        [429, 500, 503, "ok"],
        ["drop", "drop", "drop", "ok"],
        ["drop", "no ranges"],
        ["damage", "ok"],
        ["drop", "damage", "ok"],
        ["more", "ok"],
        ["less", "ok"],
        ["drop", "elsewhere", "ok"],
        ["drop", 416, "ok"],
        ["no length"],
        ["drop"] * 20 + ["ok"],
        ["reset", "ok"],
        ["page", "drop", "page", "ok"],
    ],
    ids=lambda script: ",".join(map(str, script[:4])),
)
def test_whatever_the_server_does_the_file_is_whole(tmp_path: Path, script: list) -> None:
    with serving({"/file": CONTENT}, *script) as server:
        assert fetch(remote(server.url, tmp_path)).read_bytes() == CONTENT
        assert len(server.asked) <= len(script)
    assert leftovers(tmp_path) == ["file"]


def test_a_server_that_falls_silent_is_asked_again(tmp_path: Path, soon_silent: None) -> None:
    with serving({"/file": CONTENT}, "stall", "stall", "ok") as server:
        assert fetch(remote(server.url, tmp_path)).read_bytes() == CONTENT
        assert len(server.asked) >= 3, "more where the machine is too busy to answer in time"
    assert leftovers(tmp_path) == ["file"]


def test_a_broken_download_is_continued_not_begun_again(tmp_path: Path) -> None:
    with serving({"/file": CONTENT}, "drop", "ok") as server:
        fetch(remote(server.url, tmp_path))
        assert [asked for _, asked in server.asked] == [None, f"bytes={len(CONTENT) // 2}-"]


def test_what_an_earlier_process_left_is_continued(tmp_path: Path) -> None:
    (tmp_path / ".file.partial").write_bytes(CONTENT[:1000])
    heard: list[int] = []
    with serving({"/file": CONTENT}) as server:
        fetch(remote(server.url, tmp_path), on_bytes=heard.append)
        assert server.asked == [("/file", "bytes=1000-")]
    assert sum(heard) == len(CONTENT) - 1000


def test_more_than_expected_of_an_unknown_size_is_refused(tmp_path: Path) -> None:
    unknown = Remote("", tmp_path / "file", None, SHA256, limit=2 * len(CONTENT))
    with serving({"/file": CONTENT}, "endless", "ok") as server:
        fetch(replace(unknown, url=f"{server.url}/file"))
    assert (tmp_path / "file").read_bytes() == CONTENT
    with (
        serving({"/more": CONTENT}) as server,
        pytest.raises(UserError, match="more than expected"),
    ):
        fetch(replace(unknown, url=f"{server.url}/more", path=tmp_path / "more", limit=1000))


def test_a_file_that_is_not_what_it_should_be_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT[:-1] + b"?")
    with serving({"/file": CONTENT}) as server:
        assert fetch(remote(server.url, tmp_path)).read_bytes() == CONTENT


def test_too_long_a_leftover_is_thrown_away(tmp_path: Path) -> None:
    (tmp_path / ".file.partial").write_bytes(CONTENT + b"more")
    with serving({"/file": CONTENT}) as server:
        assert fetch(remote(server.url, tmp_path)).read_bytes() == CONTENT


@pytest.mark.parametrize("script", [["damage"], ["less"], ["more"], ["page"], [500]], ids=str)
def test_what_never_gets_well_is_given_up_in_one_sentence(tmp_path: Path, script: list) -> None:
    with (
        serving({"/file": CONTENT}, *script) as server,
        pytest.raises(UserError, match="could not download .*continues"),
    ):
        fetch(remote(server.url, tmp_path))
    assert not (tmp_path / "file").exists()
    assert 2 <= len(server.asked) <= 2 * transfer.ATTEMPTS


@pytest.mark.parametrize(("code", "words"), [(404, "answers 404"), (403, "may not be read")])
def test_a_refusal_is_told_at_once(tmp_path: Path, code: int, words: str) -> None:
    with serving({}, code) as server, pytest.raises(UserError, match=words):
        fetch(remote(server.url, tmp_path))
    assert len(server.asked) == 1


def test_retry_after_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "LONGEST_WAIT", 0.2)
    with serving({"/file": CONTENT}, 429, "ok") as server:
        server.headers = {"Retry-After": "3600"}
        fetch(remote(server.url, tmp_path))
    assert transfer._seconds("3600") == 3600 and transfer._seconds("nonsense") == 0
    assert transfer._seconds("Wed, 21 Oct 2099 07:28:00 GMT") > 1e9


def test_no_network(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(UserError, match="connection refused.*check the network"):
        fetch(remote(url, tmp_path))


def test_a_whole_file_asks_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    fetch(remote("http://127.0.0.1:9", tmp_path))


def test_one_failure_stops_the_others(tmp_path: Path) -> None:
    files = {f"/{i}": CONTENT for i in range(20)}
    with serving(files, "ok") as server:
        remotes = [remote(server.url, tmp_path, str(i)) for i in range(20)]
        with pytest.raises(UserError, match="404"):
            asked = [remote(server.url, tmp_path, "absent"), *remotes]
            stop = threading.Event()
            in_parallel(lambda one: fetch(one, stop=stop), asked, stop)
    assert len(server.asked) < 21


def _fetch(url: str, folder: Path) -> None:
    fetch(remote(url, folder))


def test_two_processes_on_one_folder_do_not_collide(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with serving({"/file": CONTENT}) as server:
        both = [context.Process(target=_fetch, args=(server.url, tmp_path)) for _ in range(2)]
        for process in both:
            process.start()
        for process in both:
            process.join(PATIENCE)
        assert [process.exitcode for process in both] == [0, 0]
        assert len(server.asked) == 1
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_killed_process_is_continued_by_the_next(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    partial = tmp_path / ".file.partial"
    with serving({"/file": CONTENT}, "stall", "ok") as server:
        killed = context.Process(target=_fetch, args=(server.url, tmp_path))
        killed.start()
        wait_until(lambda: partial.exists() and partial.stat().st_size >= 100_000, killed.is_alive)
        killed.kill()
        killed.join(PATIENCE)
        held = partial.stat().st_size
        assert not (tmp_path / "file").exists()
        fetch(remote(server.url, tmp_path))
        assert server.asked[1:] == [("/file", f"bytes={held}-")]
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert leftovers(tmp_path) == ["file"]
