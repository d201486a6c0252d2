"""Data sets and the bundle, from a server that does everything wrong."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shlex
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from nanogpt2.data import download
from nanogpt2.data.download import download_bundle, download_dataset, unzip
from nanogpt2.data.shards import write_shard
from nanogpt2.errors import UserError, explain
from nanogpt2.files import MADE, mark
from tests.data.bad_server import leftovers, serving


@pytest.mark.parametrize(
    ("set_", "words"),
    [
        ("HF_HUB_OFFLINE=1", "offline mode is enabled. To disable it"),
        ("ALL_PROXY=strange://x", "Unknown scheme for proxy.*check what is set for the network"),
        ("HF_TOKEN=\xe9", "cannot be asked for .*HF_TOKEN"),
        ("HF_ENDPOINT=nonsense", "nonsense/datasets.* cannot be asked for .*HF_ENDPOINT"),
    ],
)
def test_what_is_set_for_the_network_is_named(tmp_path: Path, set_: str, words: str) -> None:
    name, _, value = set_.partition("=")
    ended = download_command(tmp_path, "http://127.0.0.1:9", {name: value})
    assert ended.returncode == 2 and re.search(words, ended.stderr.splitlines()[-1])
    assert "Traceback" not in ended.stderr and not leftovers(tmp_path)


def download_command(
    folder: Path, endpoint: str, environment: dict[str, str], limit: str = "unlimited"
) -> subprocess.CompletedProcess[str]:
    """Two shards by the command; no file may grow beyond ``limit`` KiB."""
    python = f"{shlex.quote(sys.executable)} -m nanogpt2.data.download climbmix --shards 1"
    command = f"ulimit -f {limit}; exec {python} --out {shlex.quote(str(folder))}"
    proxies = {name: "" for name in os.environ if name.lower().endswith("_proxy")}
    environment = {**os.environ, **proxies, "HF_ENDPOINT": endpoint, **environment}
    return subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True)


NAMES = ["shard_00000.parquet", "shard_00001.parquet", "shard_06542.parquet"]


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Three shards at the hub's addresses."""
    folder, files = tmp_path_factory.mktemp("hub"), {}
    repository = download.DATASETS["climbmix"].repository
    for name in NAMES:
        write_shard(folder / name, [f"{name} {random.random()}" for _ in range(3000)])
        files[f"/datasets/{repository}/resolve/main/{name}"] = (folder / name).read_bytes()
    return files


def test_a_data_set_comes_with_its_validation_shard_and_only_once(
    tmp_path: Path, hub: dict[str, bytes], soon_silent: None
) -> None:
    told: list[tuple[int, int]] = []
    total = sum(map(len, hub.values()))
    with serving(hub, 503, "drop", "ok") as server:
        server.heads = [503, "stall", 429, "ok"]
        download_dataset("climbmix", tmp_path, 2, lambda *n: told.append(n), server.url)
        assert leftovers(tmp_path) == [MADE, *NAMES]
        assert told[-1] == (total, total)
        before = len(server.asked)
        download_dataset("climbmix", tmp_path, 2, endpoint=server.url)
        assert len(server.asked) == before
    assert [(tmp_path / name).read_bytes() for name in NAMES] == list(hub.values())
    download_dataset("climbmix", tmp_path, 2, endpoint="http://127.0.0.1:9")


def test_two_data_sets_name_their_shards_alike_and_do_not_share_a_folder(
    tmp_path: Path, hub: dict[str, bytes]
) -> None:
    with serving(hub) as server:
        download_dataset("climbmix", tmp_path, 2, endpoint=server.url)
        with pytest.raises(UserError, match="holds shards of climbmix, by the same names"):
            download_dataset("fineweb-edu", tmp_path, 2, endpoint=server.url)
    assert leftovers(tmp_path) == [MADE, *NAMES]


def test_a_shard_of_the_users_own_is_not_replaced(tmp_path: Path, hub: dict[str, bytes]) -> None:
    (tmp_path / NAMES[1]).write_bytes(b"the user's own")
    with serving(hub) as server, pytest.raises(UserError, match="did not fetch it; move it away"):
        download_dataset("climbmix", tmp_path, 2, endpoint=server.url)
    assert (tmp_path / NAMES[1]).read_bytes() == b"the user's own"
    assert leftovers(tmp_path) == [NAMES[1]]


def test_a_shard_cut_short_is_fetched_again(tmp_path: Path, hub: dict[str, bytes]) -> None:
    mark(tmp_path)  # the folder of an earlier download
    for name, content in zip(NAMES, hub.values(), strict=True):
        (tmp_path / name).write_bytes(content)
    (tmp_path / NAMES[1]).write_bytes(list(hub.values())[1][:-100])
    with serving(hub) as server:
        download_dataset("climbmix", tmp_path, 2, endpoint=server.url)
        assert [path[-len(NAMES[1]) :] for path, _ in server.asked] == [NAMES[1]]
    assert (tmp_path / NAMES[1]).read_bytes() == list(hub.values())[1]


def test_a_disk_that_fills_up_is_told_and_the_rest_continued(
    tmp_path: Path, hub: dict[str, bytes]
) -> None:
    with serving(hub) as server:
        for limit, code in (("20", 2), ("unlimited", 0)):
            ended = download_command(tmp_path, server.url, {}, limit)
            assert ended.returncode == code and "Traceback" not in ended.stderr
            if code:
                assert re.search("error: .* larger than allowed here", ended.stderr)
                assert not list(tmp_path.glob("*.parquet"))
                held = max(path.stat().st_size for path in tmp_path.glob(".*.partial"))
        assert held and f"bytes={held}-" in [asked for _, asked in server.asked]
    assert leftovers(tmp_path) == [MADE, NAMES[0], NAMES[2]]


@pytest.mark.parametrize(
    ("head", "words"),
    [(403, "may not be read .403"), ("page", "does not tell its size and SHA-256")],
)
def test_answers_that_are_none_of_the_hubs(
    tmp_path: Path, hub: dict[str, bytes], head: str | int, words: str
) -> None:
    with serving(hub) as server, pytest.raises(UserError, match=words):
        server.heads = [head]
        download_dataset("climbmix", tmp_path, 2, endpoint=server.url)
    assert not server.asked and not leftovers(tmp_path)


def test_a_shard_that_is_not_the_hubs_is_thrown_away_and_told(
    tmp_path: Path, hub: dict[str, bytes]
) -> None:
    with (
        serving(hub, "damage") as server,
        pytest.raises(UserError, match="does not have the size and SHA-256"),
    ):
        download_dataset("climbmix", tmp_path, 2, endpoint=server.url)
    assert not list(tmp_path.glob("*.parquet"))


def test_what_the_hub_does_not_have_is_told(tmp_path: Path, hub: dict[str, bytes]) -> None:
    with serving(hub) as server, pytest.raises(UserError, match="404.*check the address"):
        server.heads = [404]
        download_dataset("climbmix", tmp_path, 2, endpoint=server.url)
    assert not leftovers(tmp_path)


def test_too_little_disk_is_told_before_a_byte_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: dict[str, bytes]
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("", (), {"free": 1000}))
    with serving(hub) as server, pytest.raises(UserError, match="needs 0.0 GB"):
        download_dataset("climbmix", tmp_path, 2, endpoint=server.url)
    assert not server.asked


def test_mistakes_in_asking(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown data set 'pile'"):
        download_dataset("pile", tmp_path, 1)
    with pytest.raises(UserError, match="1 to 6542"):
        download_dataset("climbmix", tmp_path, 6543)
    with pytest.raises(UserError, match="check the network"):
        download_dataset("climbmix", tmp_path, 1, endpoint="http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["pile"], "choose from"), (["climbmix", "--shards", "0"], "error: 0 training shards were")],
)
def test_the_command_ends_with_two_and_one_sentence(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    command = [sys.executable, "-m", "nanogpt2.data.download", *arguments, "--out", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2 and words in ended.stderr and "Traceback" not in ended.stderr


def write_zip(path: Path, entries: dict[str, bytes], link: str | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
        if link:
            entry = zipfile.ZipInfo(link)
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(entry, "/etc/passwd")
    return path


def test_an_archive_is_unpacked_whole(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", {"tasks/core.yaml": b"x", "b": b"y"})
    assert (unzip(archive, tmp_path / "out", 10) / "tasks/core.yaml").read_bytes() == b"x"


@pytest.mark.parametrize("name", ["../out.txt", "a/../../out.txt", "/tmp/out.txt", "..\\out.txt"])
def test_an_entry_that_would_leave_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    archive = write_zip(tmp_path / "a.zip", {"fine": b"", name: b"x"})
    with pytest.raises(UserError, match="outside"):
        unzip(archive, tmp_path / "out", 10)
    assert leftovers(tmp_path) == ["a.zip"]


def test_links_bombs_and_damage_are_refused(tmp_path: Path) -> None:
    linked = write_zip(tmp_path / "a.zip", {}, link="link")
    with pytest.raises(UserError, match="link"):
        unzip(linked, tmp_path / "out", 1000)
    bomb = write_zip(tmp_path / "b.zip", {"zeros": bytes(2000)})
    with pytest.raises(UserError, match="more than the 1,000"):
        unzip(bomb, tmp_path / "out", 1000)
    whole = bomb.read_bytes()
    bomb.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not a whole zip"):
        unzip(bomb, tmp_path / "out", 10_000)
    assert leftovers(tmp_path) == ["a.zip", "b.zip"]


def test_the_bundle_is_fetched_unpacked_and_then_asks_nobody(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", {"eval_bundle/core.yaml": b"tasks"}).read_bytes()
    sha256 = hashlib.sha256(archive).hexdigest()
    with serving({"/a.zip": archive}, "drop", "damage", "ok") as server:
        for _ in range(2):
            found = download_bundle(
                tmp_path / "cache" / "b", url=f"{server.url}/a.zip", sha256=sha256
            )
            assert (found / "core.yaml").read_bytes() == b"tasks"
        assert len(server.asked) == 3
    assert [name for name in leftovers(tmp_path / "cache") if not name.endswith(".lock")] == ["b"]


def test_a_folder_of_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="no core.yaml"):
        download_bundle(tmp_path, url="http://127.0.0.1:9")
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", [".", "", "..", "file", "file/new", "link"])
def test_where_no_bundle_can_go_nothing_is_fetched(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "a" / "b"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    if name not in (".", "", ".."):
        Path("file").write_text("mine")
        Path("link").symlink_to("nowhere")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises((UserError, OSError)) as refusal:
        download_bundle(Path(name), url="http://127.0.0.1:9")
    sentence = explain(refusal.value)
    assert sentence and "127.0.0.1" not in sentence
    assert sorted(tmp_path.rglob("*")) == before
