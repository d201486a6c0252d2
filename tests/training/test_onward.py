"""A run that begins with another's model: its weights, gentler rates, and what does not fit."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from nanogpt2 import Tokenizer, load_model
from nanogpt2.data.mixture import lay_out
from nanogpt2.data.shards import find_shards
from nanogpt2.errors import UserError
from nanogpt2.export.__main__ import main as export
from nanogpt2.files import write_json
from nanogpt2.run import GENTLER
from nanogpt2.speedrun import check_same_run
from nanogpt2.training.checkpoint import list_checkpoints, read_state
from nanogpt2.training.command import main
from nanogpt2.training.loading import find_tokenizer
from nanogpt2.training.nanochat import newest
from nanogpt2.training.onward import identity_of, onward_recipe
from nanogpt2.training.trainer import train
from tests.drills.tiny_run import RECIPE, SAME, TinyData, differences
from tests.training.ranks import run_ranks


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_data: TinyData) -> Path:
    """A finished run of six steps."""
    out = tmp_path_factory.mktemp("base") / "run"
    train(tiny_data.settings(out, steps=6))
    return out


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_the_weights_are_the_other_models(tiny_data: TinyData, base: Path, tmp_path: Path) -> None:
    """At a rate of nothing it stays the model that it began with; its optimizer begins anew."""
    run = replace(tiny_data.settings(tmp_path / "on", steps=3), init_from=base, rate_scale=0.0)
    said: list[str] = []
    train(run, on_message=said.append)
    before, after = load_model(base).state_dict(), load_model(tmp_path / "on").state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any(f"starting from {base}" in line for line in said)


def test_the_rates_are_gentler_unless_said(tiny_data: TinyData, base: Path, tmp_path: Path) -> None:
    run = replace(tiny_data.settings(tmp_path / "on", steps=3), init_from=base)
    assert run.rates == GENTLER and run.identity()["rate_scale"] == GENTLER
    assert run.assign({"rate_scale": "1"}).rates == 1
    assert replace(run, init_from=None).rates == 1


def test_it_goes_on_as_any_run(tiny_data: TinyData, base: Path, tmp_path: Path) -> None:
    """Stopped half-way it ends as an unbroken one, and needs the other model no more."""
    theirs = tmp_path / "theirs"
    shutil.copytree(base, theirs)
    whole = replace(tiny_data.settings(tmp_path / "whole", steps=6), init_from=theirs)
    train(whole)
    train(replace(whole, out=tmp_path / "cut"))
    for folder in list_checkpoints(tmp_path / "cut")[:1]:
        shutil.rmtree(folder)
    shutil.rmtree(theirs)
    train(replace(whole, out=tmp_path / "cut"))
    for one, other in zip(lines(tmp_path / "whole"), lines(tmp_path / "cut"), strict=True):
        assert {name: one.get(name) for name in SAME} == {name: other.get(name) for name in SAME}
    with pytest.raises(UserError, match=r"start is [0-9a-f]{60} there and its seed here"):
        train(replace(whole, out=tmp_path / "cut", init_from=None, rate_scale=GENTLER))


def test_the_recipe_is_the_models(base: Path) -> None:
    recipe = onward_recipe(base, None)
    assert (recipe.depth, recipe.model.vocab_size) == (RECIPE.depth, 270)
    assert recipe.muon == RECIPE.muon
    other = onward_recipe(base, "run6")  # rates and length of another, with this model's switches
    assert other.muon.beta2 == 0.9 and not other.model.smear


def test_what_does_not_fit_is_refused(tiny_data: TinyData, base: Path, tmp_path: Path) -> None:
    deeper = replace(tiny_data.settings(tmp_path / "on", replace(RECIPE, depth=3)), init_from=base)
    with pytest.raises(UserError, match="its n_layer is 2, and the run's would be 3"):
        train(deeper)
    texts = ["other words of another text " * 9]
    Tokenizer.train(texts, 270).save(tmp_path / "tokenizer")
    run = replace(
        tiny_data.settings(tmp_path / "on"), tokenizer=tmp_path / "tokenizer", init_from=base
    )
    with pytest.raises(UserError, match="trained with another tokenizer"):
        train(run)
    with pytest.raises(UserError, match="does not exist"):
        onward_recipe(tmp_path / "nowhere", None)
    assert not (tmp_path / "on").exists()


def test_a_finished_run_is_not_made_longer(tiny_data: TinyData, base: Path) -> None:
    """Its rates have fallen by the length that it had: the sentence says so, and the way around."""
    run = tiny_data.settings(base, steps=6)
    write_json(base / "config.json", {"identity": run.identity()})
    check_same_run(run)
    with pytest.raises(UserError, match=rf"rates fall by that length .*--init-from {base} --out"):
        check_same_run(tiny_data.settings(base, steps=12))
    with pytest.raises(UserError, match="holds another run"):
        check_same_run(replace(run, seed=5))


def mixed_run(tiny_data: TinyData, folder: Path, out: Path) -> list[dict]:
    train(replace(tiny_data.settings(out, steps=6), data=folder))
    return [{name: line.get(name) for name in SAME} for line in lines(out)]


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_mixture_resumes_to_the_bit(tiny_data: TinyData, tmp_path: Path, world_size: int) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_data.data_dir, other)
    lay_out([f"{tiny_data.data_dir}:0.7", f"{other}:0.3"], tmp_path / "mix")
    assert find_shards(tmp_path / "mix").weights == (0.7, 0.3)
    whole = run_ranks(world_size, mixed_run, tiny_data, tmp_path / "mix", tmp_path / "whole")
    run_ranks(world_size, mixed_run, tiny_data, tmp_path / "mix", tmp_path / "cut")
    for folder in list_checkpoints(tmp_path / "cut")[:1]:
        shutil.rmtree(folder)
    again = run_ranks(world_size, mixed_run, tiny_data, tmp_path / "mix", tmp_path / "cut")
    assert again[0] == whole[0] and len(whole[0]) == 6


@pytest.mark.parametrize("place", ["", "base_checkpoints/d2"])
def test_it_goes_on_from_nanochat(tiny_data: TinyData, tmp_path: Path, place: str) -> None:
    """With the tokenizer that lies beside it, ``tokenizer.pkl``; by the trainer's own command."""
    model = replace(RECIPE.model, value_gate_channels=32)
    recipe = replace(RECIPE, aspect=16, head_dim=16, model=model)
    base, theirs, out = tmp_path / "base", tmp_path / "nanochat", tmp_path / "on"
    train(tiny_data.settings(base, recipe, steps=2, eval_every=-1))
    assert export(["--checkpoint", str(base), "--to", "nanochat", "--out", str(theirs)]) == 0
    assert (theirs / "tokenizer" / "tokenizer.pkl").is_file()
    asked = ["--data", str(tiny_data.data_dir), "--init-from", str(theirs / place)]
    asked += ["--set", "batch_tokens=256", "--steps", "2", "--device", "cpu", "--eval-every", "0"]
    assert main([*asked, "--out", str(out), "--set", "rate_scale=0"]) == 0
    before, after = load_model(base).state_dict(), load_model(out).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert find_tokenizer(out).digest == Tokenizer.load(tiny_data.tokenizer_dir).digest
    file = newest(theirs)[1]
    for damage in (b"no pickle", file.read_bytes()[:1000]):
        cut = Path(shutil.copytree(theirs, tmp_path / f"cut{len(damage)}"))
        newest(cut)[1].write_bytes(damage)
        with pytest.raises(UserError, match="is damaged.*fetch it again"):
            onward_recipe(cut, None)
    again = tmp_path / "named"
    named = ["--tokenizer", str(tiny_data.tokenizer_dir), "--out", str(again)]
    shutil.rmtree(theirs / "tokenizer")
    with pytest.raises(UserError, match="--tokenizer"):
        main([*asked, "--out", str(again)])
    assert main([*asked, *named, "--set", "rate_scale=0"]) == 0
    assert differences(again, out) == []


def test_its_identity_names_the_weights(tiny_data: TinyData, base: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    shutil.copytree(base, theirs)
    run = replace(tiny_data.settings(tmp_path / "on", steps=3), init_from=theirs)
    train(run)
    weights = list_checkpoints(base)[0] / "model.safetensors"
    kept = read_state(list_checkpoints(run.out)[0])["identity"]
    assert kept["start"] == sha256(weights.read_bytes()).hexdigest() == identity_of(run)["start"]
    write_json(run.out / "config.json", {"identity": kept})
    check_same_run(run)
    shutil.rmtree(theirs)
    assert identity_of(run) == kept
    check_same_run(run)
    train(tiny_data.settings(theirs, steps=6, seed=1))
    for same in (check_same_run, train):
        with pytest.raises(UserError, match=r"another run \(start is [0-9a-f]+ there and"):
            same(run)


def test_the_trainer_says_so_too(tiny_data: TinyData, base: Path) -> None:
    with pytest.raises(UserError, match=rf"rates fall by that length .*--init-from {base} --out"):
        train(tiny_data.settings(base, steps=12))
