"""A small GPT-2 of transformers, made here: its outcomes, its limit, the command that scores it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

transformers = pytest.importorskip("transformers")

from nanogpt2.errors import UserError  # noqa: E402
from nanogpt2.evals.core import evaluate_core  # noqa: E402
from nanogpt2.evals.core.__main__ import main  # noqa: E402
from nanogpt2.evals.core.fast.scoring import HuggingFaceScorer, scorer_for  # noqa: E402
from nanogpt2.evals.core.huggingface import HuggingFaceTokenizer, load_huggingface  # noqa: E402
from nanogpt2.evals.core.plain import plain_core  # noqa: E402
from tests.evals.conftest import WORDS  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model with 64 positions and a byte-level tokenizer."""
    from tokenizers import ByteLevelBPETokenizer

    path = tmp_path_factory.mktemp("gpt2")
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator([" ".join(WORDS)] * 4, vocab_size=320, special_tokens=["<|endoftext|>"])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=64,
        n_embd=32,
        n_layer=2,
        n_head=2,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    transformers.GPT2LMHeadModel(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_outcomes_are_those_of_the_plain_loop(folder: Path, small_bundle: Path) -> None:
    model, tokenizer = load_huggingface(str(folder), torch.device("cpu"))
    assert type(scorer_for(model)) is HuggingFaceScorer
    assert scorer_for(model).limit() == 64
    result = evaluate_core(model, tokenizer, small_bundle)
    plain = plain_core(lambda idx: model(idx).logits, tokenizer, small_bundle, limit=64)
    found, wanted = ({k: t.correct for k, t in core.tasks.items()} for core in (result, plain))
    assert found == wanted
    assert sum(sum(task) for task in found.values()) > 0


def test_command_scores_a_folder(
    folder: Path, small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "core.json"
    arguments = ["--hf", str(folder), "--bundle", str(small_bundle), "--device", "cpu"]
    more = ["--dtype", "float32", "--tasks", "words, schema", "--max-per-task", "5"]
    assert main([*arguments, *more, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "mean of 2 tasks (not CORE), sample of at most 5 examples a task" in printed
    saved = json.loads(out.read_text())
    assert list(saved["tasks"]) == ["schema", "words"]  # in the order of the bundle


def test_an_unknown_name_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="cannot load .*check the name and the network"):
        load_huggingface(str(tmp_path / "nothing"), torch.device("cpu"))


def test_a_tokenizer_without_a_beginning_is_said(folder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.bos_token = tokenizer.eos_token = None
    with pytest.raises(UserError, match="neither a begin- nor an end-of-sequence token"):
        HuggingFaceTokenizer(tokenizer)
