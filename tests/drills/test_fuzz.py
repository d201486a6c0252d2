"""A few hundred of the hostile inputs of ``python -m tests.drills.fuzz``; the drill can fail."""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nanogpt2.data.dealing import Deal
from nanogpt2.data.long_runs import LONG
from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.errors import UserError
from nanogpt2.files import MADE, atomic_directory, mark
from tests.drills.belongings import changes, make_home, snapshot
from tests.drills.fuzz import KINDS, Figures, guarded, measure, run_one
from tests.drills.fuzz_encodings import encodings
from tests.drills.fuzz_ranks import ranks

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="watches writes as Linux tells them"
)


def test_whatever_comes_ends_well_or_in_a_sentence_and_nothing_of_the_users_is_changed():
    figures = measure(range(30 * len(KINDS)), seed=1)
    assert not figures.crashes, figures.crashes[0]
    assert not figures.changed and not figures.outside
    for kind in KINDS:
        assert figures.outcomes[kind, "refused"] > 3, "the inputs are hostile"
    for kind in ("folders", "locales", "encodings", "ranks"):
        assert figures.outcomes[kind, "read"] > 3, "and not all of them"
    assert sum(figures.outcomes.values()) == 30 * len(KINDS)


def test_what_is_written_outside_is_noted(tmp_path: Path):
    figures, inside = Figures(), tmp_path / "inside"
    inside.mkdir()
    with guarded(inside, figures):
        (inside / "a").write_text("fine")
        (inside / "a").read_text()
        (inside / "link").symlink_to(tmp_path / "b")
        (inside / ".." / "b").write_text("outside")
        (inside / "a").rename(tmp_path / "c")
        (tmp_path / "b").read_text()
    (tmp_path / "d").mkdir()
    assert figures.outside == [f"open {tmp_path / 'b'}", f"os.rename {tmp_path / 'c'}"]


# What a user loses


def changed(home: Path) -> None:
    (home / "thesis.txt").write_text("some words")


def changed_through_a_link(home: Path) -> None:
    (home / "link").write_text("")


def removed(home: Path) -> None:
    (home / os.fsdecode(b"caf\xe9.txt")).unlink()


def renamed(home: Path) -> None:
    (home / "notes").rename(home / "old notes")


def a_link_turned(home: Path) -> None:
    (home / "link to nothing").unlink()
    (home / "link to nothing").symlink_to("thesis.txt")


def an_empty_folder_removed(home: Path) -> None:
    (home / "empty").rmdir()


def a_file_that_became_a_link_to_its_copy(home: Path) -> None:
    shutil.copy(home / "table.csv", home / "copy.csv")
    (home / "table.csv").unlink()
    (home / "table.csv").symlink_to("copy.csv")


def a_marker_of_their_own_overwritten(home: Path) -> None:
    mark(home)


def a_folder_left_half_written(home: Path) -> None:
    (home / ".notes.x1y2.partial").mkdir()


@pytest.mark.parametrize(
    ("harm", "lost"),
    [
        (changed, {"thesis.txt"}),
        (changed_through_a_link, {"thesis.txt"}),
        (removed, {os.fsdecode(b"caf\xe9.txt")}),
        (renamed, {"notes", "notes/monday.md", "notes/a", "notes/a/b", "notes/a/b/c.txt"}),
        (a_link_turned, {"link to nothing"}),
        (an_empty_folder_removed, {"empty"}),
        (a_file_that_became_a_link_to_its_copy, {"table.csv"}),
        (a_marker_of_their_own_overwritten, {MADE}),
        (a_folder_left_half_written, {".notes.x1y2.partial"}),
    ],
)
@pytest.mark.parametrize("refused", [False, True])
def test_harm_to_a_users_folder_is_noted(
    harm: Callable[[Path], None], lost: set[str], refused: bool, tmp_path: Path
) -> None:
    make_home(tmp_path / "home")

    def kind(seeds: Path, work: Path, generator: random.Random) -> Callable[[], None]:
        def act() -> None:
            harm(tmp_path / "home")
            if refused:
                raise UserError("after the harm was done")

        return act

    figures = Figures()
    outcome = run_one("a kind", kind, tmp_path, tmp_path, random.Random(0), figures)
    assert outcome == ("refused" if refused else "read")
    told = {line.rpartition(" is ")[0] for line in figures.changed}
    assert told == {f"a kind: {f'home/{name}'!r}" for name in lost}


def test_what_this_program_made_it_may_renew(tmp_path: Path) -> None:
    for text in ("old", "new"):
        before = snapshot(tmp_path)
        with atomic_directory(tmp_path / "made") as temporary:
            (temporary / "a.txt").write_text(text)
        assert changes(before, snapshot(tmp_path)) == []
    (tmp_path / "made" / "mine.txt").write_text("mine")
    before = snapshot(tmp_path)
    shutil.rmtree(tmp_path / "made")
    assert changes(before, snapshot(tmp_path)) == [
        "'made' is gone",
        "'made/mine.txt' is gone",
    ]


def test_a_run_may_renew_its_files_and_set_a_checkpoint_aside(tmp_path: Path) -> None:
    step = tmp_path / "checkpoints" / "step_000100"
    step.mkdir(parents=True)
    for path in (step / "state.json", step / "notes.txt", tmp_path / "report.md"):
        path.write_text("old")
    (tmp_path / "thesis.txt").write_text("mine")
    alone = snapshot(tmp_path)
    mark(tmp_path)
    before = snapshot(tmp_path)
    (tmp_path / "report.md").write_text("new")
    step.rename(step.with_name("step_000100.damaged"))
    after = snapshot(tmp_path)
    assert changes(before, after) == []
    assert len(changes(alone, after)) == 4, "unmarked, all of it is the user's"
    (tmp_path / "thesis.txt").unlink()
    (step.with_name("step_000100.damaged") / "notes.txt").unlink()
    assert changes(before, snapshot(tmp_path)) == [
        "'thesis.txt' is gone",
        "'checkpoints/step_000100/notes.txt' is gone",
    ]


# What the kinds look at beside folders


def crashes(kind: Callable, seeds: Path, room: Path, inputs: int = 60) -> str:
    """The last lines of all crashes of a kind."""
    figures = Figures()
    for number in range(inputs):
        run_one("a kind", kind, seeds, room, random.Random(number), figures)
    return "\n".join(figures.crashes)


def test_a_document_that_is_dealt_twice_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fair = Deal.rows
    monkeypatch.setattr(Deal, "rows", lambda deal, *place: fair(deal, *place) or range(1))
    assert "read twice" in crashes(ranks, tmp_path, tmp_path)


def test_a_document_that_is_left_out_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fair = Deal.rows
    monkeypatch.setattr(Deal, "rows", lambda deal, *place: fair(deal, *place)[:2])
    assert "left out" in crashes(ranks, tmp_path, tmp_path)


def test_text_that_is_not_kept_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"document {i} of some words" for i in range(50)]
    Tokenizer.train(texts * 9, 290).save(tmp_path / "seeds" / "tokenizer")
    for kind in ("bundle", "config", "run", "settings"):
        shutil.copytree(tmp_path / "seeds" / "tokenizer", tmp_path / "seeds" / kind)
    keeps = Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda own, text: keeps(own, text[:LONG]))
    assert "AssertionError" in crashes(encodings, tmp_path / "seeds", tmp_path / "room")
