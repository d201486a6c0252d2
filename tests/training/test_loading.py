"""What is read is hashed, once and by one rank, and what is not read is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nanogpt2.errors import UserError
from nanogpt2.stages import Work
from nanogpt2.training import checkpoint
from nanogpt2.training.checkpoint import list_checkpoints
from nanogpt2.training.loading import load_model
from nanogpt2.training.ranks import ALONE, join
from nanogpt2.training.trainer import train
from tests.drills.tiny_run import TinyData, curve
from tests.training.ranks import run_ranks

MODEL = ["model.safetensors", "state.json"]


def counted(patched: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The names of the files of tensors that are opened from now on, and of those hashed."""
    seen: dict[str, list[str]] = {}
    for name in ("sha256_of", "load_file", "safe_open"):
        original, files = getattr(checkpoint, name), seen.setdefault(name, [])

        def noted(path: Path, *a: Any, call: Any = original, to: Any = files, **named: Any) -> Any:
            to.append(Path(path).name)
            return call(path, *a, **named)

        patched.setattr(checkpoint, name, noted)
    return seen


@pytest.fixture
def begun(tiny_data: TinyData, tmp_path: Path) -> Path:
    """A run with two checkpoints."""
    train(tiny_data.settings(tmp_path, steps=2, checkpoint_every=1, eval_every=-1))
    return tmp_path


def test_loading_a_model_reads_and_hashes_its_file_once(
    begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (begun, *list_checkpoints(begun)):
        with monkeypatch.context() as patched:
            seen = counted(patched)
            load_model(path)
        assert sorted(seen["sha256_of"]) == MODEL
        assert seen["load_file"] == ["model.safetensors"] and not seen["safe_open"]


def load_together(run: Path) -> dict[str, list[str]]:
    with pytest.MonkeyPatch.context() as patched, join("cpu") as ranks:
        seen = counted(patched)
        load_model(run, ranks.device, ranks)
        return {name: sorted(files) for name, files in seen.items()}


def test_one_rank_hashes_for_all(begun: Path) -> None:
    first, *others = run_ranks(3, load_together, begun)
    assert first["sha256_of"] == MODEL
    assert [rank["sha256_of"] for rank in others] == [[], []]
    assert all(rank["load_file"] == MODEL[:1] for rank in (first, *others))


def test_a_resume_hashes_every_file_that_it_reads_once(
    tiny_data: TinyData, begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = list_checkpoints(begun)[0]
    share = "optimizer_rank00000_of_00001.safetensors"
    with monkeypatch.context() as patched:
        seen = counted(patched)
        train(tiny_data.settings(begun, steps=2, checkpoint_every=1, eval_every=-1))
    assert sorted(seen["sha256_of"]) == [MODEL[0], share, MODEL[1]]
    assert seen["load_file"] == MODEL[:1] and seen["safe_open"] == [share]
    assert list_checkpoints(begun)[0] == newest, "the run was at its end"


def test_a_damaged_share_of_the_optimizer_is_no_matter_for_who_asks_the_model(
    tiny_data: TinyData, begun: Path
) -> None:
    newest, before = list_checkpoints(begun)
    (newest / "optimizer_rank00000_of_00001.safetensors").write_bytes(b"lost")
    load_model(newest)
    with pytest.raises(UserError, match="4 bytes instead of"):
        train(tiny_data.settings(begun / "other", steps=2, eval_every=-1, resume_from=newest))
    whole = curve(begun)
    told: list[str] = []
    settings = tiny_data.settings(begun, steps=2, checkpoint_every=1, eval_every=-1)
    assert train(settings, on_message=told.append).resumed_from == 1
    assert any(line.startswith(f"passing over {newest.name}: ") for line in told)
    assert before.is_dir()
    assert curve(begun) == whole


def test_the_stages_after_a_training_load_its_model_once(
    begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bits per byte, CORE and samples: each used to read and to hash it."""
    work = object.__new__(Work)
    work.out, work.ranks = begun, ALONE
    seen = counted(monkeypatch)
    engines = [work.engine(ALONE), work.engine(ALONE), work.engine()]
    assert engines[0] is engines[1] is engines[2]
    assert sorted(seen["sha256_of"]) == MODEL and seen["load_file"] == MODEL[:1]
