"""Nothing that a user had is removed or replaced: folders as they stand before and after."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nanogpt2.data import tokenizer as tokenizer_room
from nanogpt2.data.shards import write_shard
from nanogpt2.errors import UserError, explain
from nanogpt2.files import MADE, atomic_directory, mark, write_json
from nanogpt2.folder import LOCK, NAMES, claimed


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every path below ``folder`` with its content (of a link: its target)."""
    return {
        str(path.relative_to(folder)): os.readlink(path).encode()
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in sorted(folder.rglob("*"))
    }


def make(folder: Path, text: str, *inputs: Path) -> None:
    with atomic_directory(folder, *inputs) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "made.txt").write_text(text)


def test_what_this_program_made_it_may_replace(tmp_path: Path) -> None:
    make(tmp_path / "d", "old")
    make(tmp_path / "d", "new")
    assert set(tree(tmp_path)) == {"d", f"d/{MADE}", "d/sub", "d/sub/made.txt"}
    assert (tmp_path / "d" / "sub" / "made.txt").read_text() == "new"


def test_an_empty_folder_is_free(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    make(tmp_path / "d", "new")
    assert (tmp_path / "d" / "sub" / "made.txt").read_text() == "new"


def of_the_user(folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")


def added_to(folder: Path) -> None:
    make(folder, "ours")
    (folder / "sub" / "notes.txt").write_text("added by hand")


def an_empty_folder_added(folder: Path) -> None:
    make(folder, "ours")
    (folder / "mine").mkdir()


def a_marker_of_their_own(folder: Path) -> None:
    folder.mkdir()
    write_json(folder / MADE, {"files": ["thesis.txt"]})
    (folder / "thesis.txt").write_text("years of work")


def a_damaged_marker(folder: Path) -> None:
    make(folder, "ours")
    (folder / MADE).write_text('{"made_by": "nanogpt2", "files"')


def a_link(folder: Path) -> None:
    of_the_user(folder.with_name("elsewhere"))
    folder.symlink_to(folder.with_name("elsewhere"))


def a_link_to_ours(folder: Path) -> None:
    make(folder.with_name("elsewhere"), "ours")
    folder.symlink_to(folder.with_name("elsewhere"))


def a_broken_link(folder: Path) -> None:
    folder.symlink_to(folder.with_name("nowhere"))


def a_file(folder: Path) -> None:
    folder.write_text("years of work")


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (of_the_user, "holds thesis.txt, which this program did not make"),
        (added_to, "holds sub/notes.txt, which this program did not make"),
        (an_empty_folder_added, "holds mine, which this program did not make"),
        (a_marker_of_their_own, f"holds {MADE}, which this program did not make"),
        (a_damaged_marker, f"holds {MADE}, which this program did not make"),
        (a_link, "is a link"),
        (a_link_to_ours, "is a link"),
        (a_broken_link, "is a link"),
        (a_file, "is a file"),
    ],
)
def test_all_else_is_refused_before_the_work(prepare, words: str, tmp_path: Path) -> None:
    prepare(tmp_path / "d")
    before = tree(tmp_path)
    with pytest.raises(UserError, match=words), atomic_directory(tmp_path / "d"):
        pytest.fail("the work began")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", [".", "..", "", "../work", "../.."])
def test_never_the_working_directory_or_above(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "work", "ours")
    monkeypatch.chdir(tmp_path / "work")
    with pytest.raises(UserError, match="the folder you are in, or holds it"):
        make(Path(name), "new")
    assert (tmp_path / "work" / "sub" / "made.txt").read_text() == "ours"


def test_never_an_input_or_what_holds_one(tmp_path: Path) -> None:
    make(tmp_path / "d", "ours")
    (tmp_path / "link").symlink_to(tmp_path / "d" / "sub")
    for read in (tmp_path / "d", tmp_path / "d" / "sub", tmp_path / "link"):
        with pytest.raises(UserError, match="would be replaced"):
            make(tmp_path / "d", "new", read)
    assert (tmp_path / "d" / "sub" / "made.txt").read_text() == "ours"


@pytest.mark.parametrize("name", ["d/../d", "d/sub/../../d", "link/d", "d/sub/.."])
def test_a_folder_may_be_named_in_a_roundabout_way(name: str, tmp_path: Path) -> None:
    make(tmp_path / "d", "old")
    (tmp_path / "link").symlink_to(".")
    make(tmp_path / name, "new")
    assert (tmp_path / "d" / "sub" / "made.txt").read_text() == "new"
    assert {path.name for path in tmp_path.iterdir()} == {"d", "link"}


def a_circle_of_links(path: Path) -> None:
    path.with_name("there").symlink_to(path)
    path.symlink_to("there")


@pytest.mark.parametrize("prepare", [a_file, a_circle_of_links])
def test_below_what_is_no_folder_nothing_is_made(prepare, tmp_path: Path) -> None:
    prepare(tmp_path / "d")
    before = tree(tmp_path)
    with pytest.raises(OSError) as refusal:
        make(tmp_path / "d" / "new", "new")
    assert "name another folder" in str(explain(refusal.value))
    make(tmp_path / "new", "new", tmp_path / "d")  # as an input, it holds nothing
    assert before.items() <= tree(tmp_path).items()


# The folder of a run


@pytest.mark.parametrize("name", [*NAMES, MADE, LOCK])
def test_what_is_no_runs_is_never_taken_for_one(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("years of work")
    before = tree(tmp_path)
    with pytest.raises(UserError, match=f"holds {name}, which no run"), claimed(tmp_path):
        pytest.fail("a run began")
    assert tree(tmp_path) == before


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / LOCK).symlink_to("thesis.txt")
    before = tree(tmp_path)
    with pytest.raises(UserError, match=f"holds {LOCK}, which no run"), claimed(tmp_path):
        pytest.fail("a run began")
    assert tree(tmp_path) == before


def test_a_folder_of_another_kind_that_this_program_made_is_no_run(tmp_path: Path) -> None:
    make(tmp_path / "d", "ours")
    (tmp_path / "d" / "config.json").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(UserError, match=r"holds config\.json"), claimed(tmp_path / "d"):
        pytest.fail("a run began")
    assert tree(tmp_path) == before


def test_a_run_that_was_killed_before_it_began_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    with claimed(tmp_path):
        mark(tmp_path)
        (tmp_path / "config.json").write_text("ours")
    with claimed(tmp_path):
        pass
    assert set(tree(tmp_path)) == {LOCK, MADE, "config.json"}


def test_a_folder_that_comes_to_be_while_it_is_made_is_looked_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / MADE).write_text("mine")
    before = tree(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"holds {MADE}, which no run"), claimed(Path("new/..")):
        pytest.fail("a run began")
    assert tree(tmp_path) == before


def test_where_no_run_begins_nothing_stays(tmp_path: Path) -> None:
    for name in ("new", "new/below/it"):
        with claimed(tmp_path / name):
            pass
        assert tree(tmp_path) == {} and not list(tmp_path.iterdir())


# During the work


def test_what_was_added_during_the_work_stays(tmp_path: Path) -> None:
    make(tmp_path / "d", "old")
    with pytest.raises(UserError, match="notes.txt"), atomic_directory(tmp_path / "d") as temporary:
        (temporary / "made.txt").write_text("new")
        (tmp_path / "d" / "notes.txt").write_text("added meanwhile")
    assert (tmp_path / "d" / "notes.txt").read_text() == "added meanwhile"
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_the_old_folder_comes_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "d", "old")
    replace = os.replace

    def full(source, target):
        if str(source).endswith(".partial") and Path(target).name == "d":
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        make(tmp_path / "d", "new")
    assert (tmp_path / "d" / "sub" / "made.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize("out", ["data", ".", "notes", "data/.."])
def test_the_tokenizer_command_replaces_nothing(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        write_shard(tmp_path / "data" / f"{name}.parquet", [f"words of {name} again and again"])
    of_the_user(tmp_path / "notes")
    before = tree(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        tokenizer_room.main(["--data", "data", "--out", out, "--vocab-size", "266"])
    assert tree(tmp_path) == before


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_worked_on_and_keeps_none_after_a_kill(
    number: int, tmp_path: Path
) -> None:
    script = f"""
import fcntl, os, signal, socket, sys
from pathlib import Path
def flock(*given):
    raise OSError({number}, os.strerror({number}))
fcntl.flock = flock
socket.gethostname = lambda: sys.argv[1]
from nanogpt2.files import mark
from nanogpt2.folder import claimed
with claimed(Path(sys.argv[2])):
    mark(Path(sys.argv[2]))
    print("at work", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    for host in ("spot-1", "spot-2"):
        ran = subprocess.run(
            [sys.executable, "-c", script, host, str(tmp_path / "run")],
            capture_output=True, text=True,
        )  # fmt: skip
        assert ran.stdout == "at work\n", ran.stderr
