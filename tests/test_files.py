import os
import signal
import subprocess
import sys

import pytest

from nanogpt2.errors import UserError, explain, run_command
from nanogpt2.files import (
    atomic_directory,
    atomic_write,
    read_json,
    require_free_space,
    sha256_of,
    write_json,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_failed_folder_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), atomic_directory(tmp_path / "d") as temporary:
        (temporary / "x").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with atomic_directory(tmp_path / "d") as temporary:
        (temporary / "x").write_text("whole")
    assert (tmp_path / "d" / "x").read_text() == "whole"


def test_damaged_and_missing_json_say_the_cure(tmp_path):
    with pytest.raises(UserError, match="does not exist; delete"):
        read_json(tmp_path / "none.json")
    for content, words in (
        (b"\xff{", "damaged"),
        (b"{", "not valid"),
        (b"[" * 20_000, "not valid"),
    ):
        (tmp_path / "bad.json").write_bytes(content)
        with pytest.raises(UserError, match=words):
            read_json(tmp_path / "bad.json")


def test_a_file_far_too_large_is_not_read(tmp_path):
    with open(tmp_path / "large.json", "wb") as file:
        file.truncate(1 << 40)  # takes no disk
    with pytest.raises(UserError, match="1,099,511,627,776 bytes, too many.*; delete"):
        read_json(tmp_path / "large.json")


def test_free_space_is_asked_of_the_nearest_folder(tmp_path):
    require_free_space(tmp_path / "not" / "yet", 1, "a byte")
    with pytest.raises(UserError, match="free some space"):
        require_free_space(tmp_path / "not" / "yet", 10**18, "an exabyte")


def test_sha256_of_the_empty_file(tmp_path):
    (tmp_path / "e").touch()
    assert sha256_of(tmp_path / "e").startswith("e3b0c44298fc1c14")


@pytest.mark.parametrize(
    ("error", "code"),
    [(UserError("no"), 2), (PermissionError(13, "x", "/f"), 2), (KeyboardInterrupt(), 130)],
)
def test_exit_codes(error, code, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as stop:
        run_command(main)
    assert stop.value.code == code
    assert "Traceback" not in capsys.readouterr().err


def test_a_bug_keeps_its_traceback():
    assert explain(KeyError("x")) is None
    with pytest.raises(KeyError):
        run_command(lambda: {}["x"])


def test_a_rank_that_is_done_is_not_brought_down_by_pythons_end():
    """Here by an object that aborts when it is cleared away; what was asked for at exit is done."""
    program = """if True:
        import atexit, os
        from nanogpt2.errors import run_command
        class Late:
            def __del__(self, abort=os.abort):
                abort()
        late = Late()
        atexit.register(print, "asked for")
        run_command(lambda: print("done") or 3)
    """
    alone, rank = (
        subprocess.run(
            [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False
        )
        for env in ({**os.environ}, {**os.environ, "LOCAL_RANK": "0"})
    )
    assert alone.returncode == -signal.SIGABRT
    assert (rank.returncode, rank.stdout.splitlines()) == (3, ["done", "asked for"])
