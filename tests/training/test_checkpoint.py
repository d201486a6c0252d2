"""Checkpoints: exact for the same number of ranks, right for another, and only of this model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nanogpt2.errors import UserError
from nanogpt2.model.gpt import GPT
from nanogpt2.recipes import RUN1
from nanogpt2.training import nanochat
from nanogpt2.training.checkpoint import (
    Shards,
    checkpoint_folder,
    read_state,
    restore,
    verify,
)
from nanogpt2.training.loading import find_tokenizer_folder, load_model
from nanogpt2.training.ranks import join
from nanogpt2.training.saver import Saver
from tests.training.ranks import run_ranks
from tests.training.tiny import RECIPE, state_of, tiny_model, train_steps

STEPS = 3


def save(run: Path, step: int, model: GPT, optimizer: Any, ranks: Any, **progress: Any) -> Path:
    state = {"model": model.config.to_dict(), "recipe": RECIPE.to_dict(), "progress": progress}
    saver = Saver(run, ranks)
    saver.save(step, model, optimizer, state, {"rank": ranks.rank})
    saver.wait()
    return checkpoint_folder(run, step)


def save_alone(run: Path, step: int = STEPS, **progress: Any) -> Path:
    model, optimizer = tiny_model()
    train_steps(model, optimizer, 0, step)
    with join("cpu") as ranks:
        return save(run, step, model, optimizer, ranks, **progress)


def go_on(folder: Path, model: GPT, optimizer: Any) -> int:
    verify(folder)
    state = read_state(folder)
    restore(folder, state, model, optimizer)
    return state["step"]


def test_one_rank_continues_bit_for_bit(tmp_path: Path) -> None:
    model, optimizer = tiny_model()
    losses = train_steps(model, optimizer, 0, 2 * STEPS)
    folder = save_alone(tmp_path)
    again, again_optimizer = tiny_model(seed=7)
    step = go_on(folder, again, again_optimizer)
    assert train_steps(again, again_optimizer, step, STEPS) == losses[STEPS:]
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    for name, tensor in state_of(optimizer).items():
        assert torch.equal(state_of(again_optimizer)[name], tensor), name


def leg(run: Path, source: Path | None, first: int, count: int = STEPS) -> dict[str, Any]:
    """One leg of a run on some number of ranks: continue, train, save; then one step more."""
    with join("cpu") as ranks:
        model, optimizer = tiny_model(seed=0 if source is None else 9)
        loaded = {}
        if source is not None:
            go_on(source, model, optimizer)
            loaded = state_of(optimizer)
        train_steps(model, optimizer, first, count, ranks.rank, ranks.world_size)
        save(run, first + count, model, optimizer, ranks)
        losses = train_steps(model, optimizer, first + count, 1, ranks.rank, ranks.world_size)
        return {"loaded": loaded, "loss": ranks.sum(losses)[0] / ranks.world_size}


def whole_state(folder: Path) -> dict[str, torch.Tensor]:
    """The optimizer's state in full, put together by the reader from the ranks' files."""
    shards = Shards(folder, read_state(folder)["world_size"])
    _, optimizer = tiny_model()
    return {
        f"{name}/{key}": shards.read(name, key, start, stop)
        for name, start, stop, shares in optimizer.shard_state()
        for key in shares
    }


def test_another_number_of_ranks_continues_the_same_run(tmp_path: Path) -> None:
    """4 -> 2 -> 8 ranks: what is loaded is what was saved; the losses are one process's."""
    model, optimizer = tiny_model()
    losses = train_steps(model, optimizer, 0, 3 * STEPS + 1)
    source = None
    for number, world_size in enumerate((4, 2, 8)):
        first = number * STEPS
        results = run_ranks(world_size, leg, tmp_path, source, first)
        if source is not None:
            whole = whole_state(source)
            check_loaded([result["loaded"] for result in results], whole)
        source = checkpoint_folder(tmp_path, first + STEPS)
        verify(source)
        assert len(list(source.glob("optimizer_*"))) == world_size
        expected = losses[first + STEPS]
        assert results[0]["loss"] == pytest.approx(expected, rel=2e-5), f"{world_size} ranks"


def check_loaded(ranks: list[dict], whole: dict[str, torch.Tensor]) -> None:
    """Each rank's share is its rows of the whole state, and no row is missing."""
    rows: dict[str, set[int]] = {}
    for share in ranks:
        for label, tensor in share.items():
            name, _, start = label.partition("@")
            if tensor.shape == whole[name].shape:
                expected = whole[name]
            else:
                expected = whole[name][int(start) : int(start) + tensor.size(0)]
            assert torch.equal(tensor, expected), label
            rows.setdefault(name, set()).update(range(int(start), int(start) + tensor.size(0)))
    for name, tensor in whole.items():
        assert rows[name] == set(range(tensor.size(0))), name


def test_the_same_number_of_ranks_continues_bit_for_bit(tmp_path: Path) -> None:
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    whole = run_ranks(2, leg, unbroken, None, 0, 2 * STEPS)
    run_ranks(2, leg, broken, None, 0)
    again = run_ranks(2, leg, broken, checkpoint_folder(broken, STEPS), STEPS)
    assert again[0]["loss"] == whole[0]["loss"]
    files = [checkpoint_folder(run, 2 * STEPS) for run in (unbroken, broken)]
    for path in files[0].iterdir():
        assert path.read_bytes() == (files[1] / path.name).read_bytes(), path.name


def test_load_model_takes_a_run_or_a_checkpoint(tmp_path: Path) -> None:
    folder = save_alone(tmp_path)
    model, optimizer = tiny_model()
    train_steps(model, optimizer, 0, STEPS)
    for path in (tmp_path, folder, str(folder)):
        loaded = load_model(path)
        assert not loaded.training and loaded.config == model.config
        for name, tensor in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor), name


def test_find_tokenizer_folder(tmp_path: Path) -> None:
    folder = save_alone(tmp_path)
    with pytest.raises(UserError, match="no folder tokenizer"):
        find_tokenizer_folder(folder)
    (tmp_path / "tokenizer").mkdir()
    assert find_tokenizer_folder(folder) == tmp_path / "tokenizer"
    assert find_tokenizer_folder(tmp_path) == tmp_path / "tokenizer"


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = save_alone(tmp_path)
    model, optimizer = tiny_model()
    other = replace(model.config, n_embd=32)
    with pytest.raises(UserError, match="checkpoint of another model"):
        restore(folder, read_state(folder), GPT(other), optimizer)


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    folder = save_alone(tmp_path)
    _, optimizer = tiny_model(recipe=replace(RECIPE, matrices="adamw"))
    with pytest.raises(UserError, match="exp_avg|no optimizer state"):
        restore(folder, read_state(folder), None, optimizer)


@pytest.mark.parametrize("content", ["nothing", "file", "empty"])
def test_nothing_to_load(tmp_path: Path, content: str) -> None:
    path = tmp_path / "run"
    if content == "file":
        path.write_text("hello")
    elif content == "empty":
        path.mkdir()
    with pytest.raises(UserError, match="does not exist|is a file|holds no whole checkpoint"):
        load_model(path)


def nanochat_files(folder: Path, prefix: str = "") -> GPT:
    """A folder as nanochat writes it: two steps, of which the second is the newer."""
    model, _ = tiny_model(seed=3)
    meta = {name: getattr(model.config, name) for name in RUN1.model.to_dict()}
    text = json.dumps({name: meta[name] for name in nanochat.FIELDS})
    for step, scale in ((99, 0.0), (100, 1.0)):
        weights = {prefix + name: t * scale for name, t in model.state_dict().items()}
        wte = prefix + "transformer.wte.weight"
        weights[wte] = weights[wte].bfloat16()
        torch.save(weights, folder / f"model_{step:06d}.pt")
        (folder / f"meta_{step:06d}.json").write_text(f'{{"step": {step}, "model_config": {text}}}')
    return model


@pytest.fixture
def nanochat_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    """nanochat's gates read 32 channels; the tiny model is narrower, so its recipe is used."""
    real = nanochat.GPTConfig.from_dict
    channels = RECIPE.model.value_gate_channels

    def narrow(values: dict) -> Any:
        return real({"value_gate_channels": channels, **values})

    monkeypatch.setattr(nanochat.GPTConfig, "from_dict", narrow)


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_a_nanochat_checkpoint_loads(tmp_path: Path, prefix: str, nanochat_gates: None) -> None:
    model = nanochat_files(tmp_path, prefix)
    for path in (tmp_path, tmp_path / "model_000100.pt"):
        loaded = load_model(path)
        assert loaded.device.type == "cpu"
        for name, tensor in model.state_dict().items():
            expected = tensor.bfloat16().float() if "wte" in name else tensor
            assert torch.equal(loaded.state_dict()[name], expected), name


class Evil:
    """What a pickle can do when it is trusted."""

    def __reduce__(self) -> tuple:
        return (open, ("pwned", "w"))


@pytest.mark.parametrize(
    "damage", ["code", "text", "half", "list", "view", "meta", "no meta", "field"]
)
def test_a_bad_nanochat_checkpoint(
    tmp_path: Path, damage: str, nanochat_gates: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    nanochat_files(tmp_path)
    file, meta = tmp_path / "model_000100.pt", tmp_path / "meta_000100.json"
    if damage == "code":
        torch.save({"transformer.wte.weight": Evil()}, file)
    elif damage == "text":
        file.write_text("<html>404</html>")
    elif damage == "half":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif damage == "list":
        torch.save([torch.zeros(2)], file)
    elif damage == "view":  # a few bytes that claim to be all parameters
        torch.save({"transformer.wte.weight": torch.zeros(1).expand(1 << 50)}, file)
    elif damage == "meta":
        meta.write_text("{")
    elif damage == "no meta":
        meta.unlink()
    else:
        meta.write_text(meta.read_text().replace("n_layer", "layers"))
    with pytest.raises(UserError):
        load_model(tmp_path)
    assert not (tmp_path / "pwned").exists()
