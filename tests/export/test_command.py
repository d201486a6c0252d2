"""The command: folders that are whole, round trips, mistakes in a sentence."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.errors import UserError
from nanogpt2.evals.bits_per_byte import main as measure
from nanogpt2.export import nanochat, safetensors, web
from nanogpt2.export.__main__ import KINDS, main
from nanogpt2.export.card import model_card
from nanogpt2.export.trained import Trained, load_trained
from nanogpt2.recipes import RECIPES
from nanogpt2.training.checkpoint import list_checkpoints
from nanogpt2.training.trainer import train
from tests.drills.tiny_run import TinyData
from tests.inference.conftest import build, small

IDX = torch.randint(300, (2, 40), generator=torch.Generator().manual_seed(0))


def of_record(name: str) -> Trained:
    """A small model with all the switches of a record."""
    sizes = {"vocab_size": 300, "sequence_len": 64, "n_layer": 3, "n_head": 2, "n_kv_head": 2}
    config = replace(RECIPES[name].model, **sizes, n_embd=32)
    texts = ["the old harbour keeps a quiet light for boats that come late in the rain"]
    return Trained(Path(), build(config, torch.float32), Tokenizer.train(texts, 300), step=7)


def test_both_cards_tell_of_the_run_that_the_checkpoint_lies_in(tmp_path: Path) -> None:
    machine = {"processor": "a processor", "commit": "abc+"}
    config = {"name": "laptop", "credits": ["Speeches"], "command": "python", "machine": machine}
    config["recipe"] = RECIPES["laptop"].to_dict()
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "metrics.jsonl").write_text('{"step": 7, "seconds": 90}\n')
    (tmp_path / "evaluation.json").write_text('{"val_bpb": 1.5}')
    trained = replace(of_record("run1"), checkpoint=tmp_path / "checkpoints" / "step_000007")
    web.write(trained, tmp_path)
    shown = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    for text in (model_card(trained), shown):
        for line in (
            "| in | 1 min 30 s, 7 steps |",
            "| by | a processor, commit abc+ |",
            "| held-out text | 1.5000 bits per byte |",
        ):
            assert line in text
    assert "- Speeches" in model_card(trained)
    alone = replace(trained, checkpoint=Path("nowhere"))
    assert "No record of the run" in model_card(alone)


def test_the_card_of_an_early_checkpoint_says_what_was_known_then(tmp_path: Path) -> None:
    config = {"name": "laptop", "credits": [], "command": "python", "recipe": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    lines = [
        {"step": 7, "seconds": 90, "tokens": 700, "val_bpb": 2.5},
        {"step": 9, "seconds": 120, "tokens": 900, "val_bpb": 2.25, "core": 0.25},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "training.json").write_text('{"step": 9, "tokens": 900}')
    (tmp_path / "evaluation.json").write_text('{"val_bpb": 1.5}')
    (tmp_path / "core.json").write_text('{"core": 0.3}')
    early, last = (replace(of_record("run1"), checkpoint=tmp_path, step=n) for n in (7, 9))
    text = model_card(early)
    for row in ("| trained on | 700 tokens |", "7 steps of a run of 9 |", "2.5000 bits per byte"):
        assert row in text
    assert "CORE" not in text
    for row in ("| trained on | 900 tokens |", "9 steps |", "1.5000 bits", "| CORE | 0.3000 |"):
        assert row in model_card(last)


def test_every_kind_has_its_module() -> None:
    for kind in KINDS:
        assert find_spec(f"nanogpt2.export.{kind}"), kind


@pytest.mark.parametrize("name", ["run1", "run4", "run5", "run6", "head"])
@pytest.mark.parametrize("theirs", [False, True])
def test_through_nanochat_and_back(name: str, theirs: bool, tmp_path: Path) -> None:
    """By what we wrote beside its files, and without that, as nanochat writes them."""
    made = of_record(name)
    nanochat.write(made, tmp_path)
    folder = tmp_path / "base_checkpoints" / "d3"
    meta = folder / "meta_000007.json"
    if theirs:
        said = json.loads(meta.read_text())
        meta.write_text(json.dumps({name: said[name] for name in ("step", "model_config")}))
    again = load_trained(folder, recipe="run4" if theirs and name == "run4" else None)
    if not theirs:
        with pytest.raises(UserError, match="leave out --recipe"):
            load_trained(folder, recipe="run5")
    assert again.step == 7 and again.tokenizer.digest == made.tokenizer.digest
    with torch.inference_mode():
        assert torch.equal(again.model(IDX), made.model(IDX))
    out = tmp_path / "ours"
    more = ["--recipe", "run4"] if theirs and name == "run4" else []
    assert main(["--checkpoint", str(folder), "--to", "safetensors", "--out", str(out), *more]) == 0
    ours = load_trained(out)
    assert ours.step == 7 and ours.tokenizer.digest == made.tokenizer.digest
    with torch.inference_mode():
        assert torch.equal(ours.model(IDX), made.model(IDX))


def test_what_nanochat_never_had_is_refused(tmp_path: Path) -> None:
    model = build(small("gpt2", vocab_size=300), torch.float32)
    with pytest.raises(UserError, match="no version of nanochat has this model: .* --to hf"):
        nanochat.write(replace(of_record("run1"), model=model), tmp_path)


class Evil:
    """What a pickle can do when it is trusted."""

    def __reduce__(self) -> tuple:
        return (open, ("pwned", "w"))


@pytest.mark.parametrize("damage", ["code", "name", "half", "list", "ranks", "special"])
def test_a_pickle_is_not_run(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    nanochat.write(of_record("run1"), tmp_path)
    path = tmp_path / "tokenizer" / "tokenizer.pkl"
    whole = path.read_bytes()
    encoding = pickle.loads(whole)
    if damage == "code":
        path.write_bytes(pickle.dumps({"a": Evil()}))
    elif damage == "name":  # tiktoken's own registry would fetch it
        path.write_bytes(pickle.dumps(__import__("tiktoken").get_encoding) + b"")
    elif damage == "half":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "list":
        path.write_bytes(pickle.dumps([1]))
    else:
        if damage == "ranks":
            encoding._mergeable_ranks.pop(b"a")
        else:
            encoding._special_tokens["<|bos|>"] = 7
        path.write_bytes(pickle.dumps(encoding))
    with pytest.raises(UserError, match="is no tokenizer of nanochat's .*--tokenizer"):
        Tokenizer.load(tmp_path / "tokenizer")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("kind", ["hf", "safetensors"])
def test_a_run_is_exported_whole(
    kind: str, tiny_data: TinyData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / kind
    train(tiny_data.settings(run, steps=2, checkpoint_every=1, eval_every=-1))
    alone = tmp_path / "alone" / "a" / "b" / "c"  # no tokenizer lies above it
    shutil.copytree(list_checkpoints(run)[0], alone)
    how = ["--checkpoint", str(alone), "--to", kind, "--out", str(out)]
    with pytest.raises(UserError, match="--tokenizer"):
        main(how)
    assert not out.exists()
    how += ["--tokenizer", str(tiny_data.tokenizer_dir)]
    for _ in range(2):  # what it made it may replace
        assert main(how) == 0
    assert capsys.readouterr().out == f"{out}\n{out}\n"
    with pytest.raises(UserError, match="holds"):
        main([*how[:-4], "--out", str(tmp_path), *how[-2:]])
    (out / "mine").touch()
    with pytest.raises(UserError, match="mine, which this program did not make"):
        main(how)
    with pytest.raises(UserError, match="leave out --recipe"):
        main([*how[:-4], "--out", str(tmp_path / "new"), *how[-2:], "--recipe", "run4"])


def test_bits_per_byte_of_a_checkpoint_are_those_that_its_run_measured(
    tiny_data: TinyData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = train(tiny_data.settings(tmp_path, steps=2, eval_every=0))
    how = ["--checkpoint", str(tmp_path), "--tokenizer", str(tiny_data.tokenizer_dir)]
    how += ["--data", str(tiny_data.data_dir), "--tokens", "512", "--dtype", "float32"]
    assert measure([*how, "--device", "cpu"]) == 0
    assert capsys.readouterr().out == f"{result.val_bpb:.4f} bits per byte over 512 tokens\n"


def test_the_tokenizer_that_is_given_is_not_written_over(tmp_path: Path) -> None:
    trained, alone, tokenizer = of_record("run1"), tmp_path / "alone", tmp_path / "tokenizer"
    alone.mkdir()
    safetensors.write(trained, alone)
    shutil.move(alone / "tokenizer", tokenizer)
    given = ["--checkpoint", str(alone), "--tokenizer", str(tokenizer), "--to", "hf"]
    with pytest.raises(UserError, match="would be replaced"):
        main([*given, "--out", str(tokenizer)])
    assert Tokenizer.load(tokenizer).vocab_size == 300
    assert main([*given, "--out", str(tmp_path / "hf")]) == 0
    shutil.copytree(tokenizer, alone / "tokenizer")  # and where nobody names it
    with pytest.raises(UserError, match="would be replaced"):
        main([*given[:2], *given[4:], "--out", str(alone / "tokenizer")])
    assert Tokenizer.load(alone / "tokenizer").vocab_size == 300
