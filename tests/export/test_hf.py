"""The folder for transformers: the same tokens, logits and texts as ours, without this package."""

from __future__ import annotations

import ast
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt2.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from nanogpt2.evals.core import evaluate_core
from nanogpt2.evals.core.huggingface import load_huggingface
from nanogpt2.export import hf
from nanogpt2.export.trained import Trained
from nanogpt2.inference.engine import Engine
from nanogpt2.inference.generation import generate
from tests.evals.conftest import WORDS
from tests.inference.conftest import build, small

transformers = pytest.importorskip("transformers", reason="the package transformers is missing")

RUNGS = ["run1", "run6", "head", "gpt2"]
TEXT = [" ".join(WORDS), "aaaa aaaaaaa abababab 'tis 2019, don't!\n\n\tfn(x) {}", "naïve 東京 🙂 "]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXT * 3, 330)


@pytest.fixture(scope="module")
def exported(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer
) -> Callable[[str], tuple[Any, Any, Path]]:
    """By rung: our model, theirs, and the folder between them."""
    made: dict[str, tuple[Any, Any, Path]] = {}

    def make(rung: str) -> tuple[Any, Any, Path]:
        if rung not in made:
            folder = tmp_path_factory.mktemp(rung)
            heads = {} if rung == "gpt2" else {"n_kv_head": 2}
            model = build(small(rung, vocab_size=330, sequence_len=256, **heads), torch.float32)
            hf.write(Trained(folder, model, tokenizer), folder)
            load = transformers.AutoModelForCausalLM.from_pretrained
            made[rung] = model, load(folder, trust_remote_code=True).eval(), folder
        return made[rung]

    return make


@pytest.mark.parametrize("rung", RUNGS)
def test_logits_are_ours(rung: str, exported: Any) -> None:
    ours, theirs, _ = exported(rung)
    idx = torch.randint(330, (3, 200), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found, wanted = theirs(idx).logits, ours(idx)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        labels = idx.clone()
        labels[:, :50] = -100
        loss = theirs(idx, labels=labels).loss
        targets = torch.where(labels == -100, -1, labels)[:, 1:]
        torch.testing.assert_close(loss, ours(idx[:, :-1], targets))


@pytest.mark.parametrize("rung", RUNGS)
def test_two_hundred_greedy_tokens_are_ours_with_cache_and_without(
    rung: str, exported: Any
) -> None:
    ours, theirs, _ = exported(rung)
    prompt = torch.randint(330, (1, 30), generator=torch.Generator().manual_seed(1))
    wanted = generate(ours, prompt.tolist(), 200, temperature=0)[0]
    assert len(wanted) == 200
    for use_cache in (True, False):
        how = {"do_sample": False, "eos_token_id": None, "use_cache": use_cache}
        text = theirs.generate(prompt, max_new_tokens=200, **how)
        assert text[0, 30:].tolist() == wanted


def test_what_transformers_would_decide_by_itself_is_decided(exported: Any) -> None:
    """Of how many tokens its loss is the mean, and how many candidates sampling draws from."""
    _, theirs, _ = exported("run1")
    rows = torch.randint(300, (4, 16), generator=torch.Generator().manual_seed(0))
    whole = theirs(rows, labels=rows).loss.detach()
    parts = [theirs(row[None], labels=row[None], num_items_in_batch=60).loss for row in rows]
    assert float(torch.stack(parts).mean().detach()) == pytest.approx(float(whole), rel=1e-5)
    assert theirs.accepts_loss_kwargs is False, "so its trainer divides by the number of passes"
    chosen = theirs.generate(rows[:1], max_new_tokens=1, output_scores=True,
                             return_dict_in_generate=True)  # fmt: skip
    assert torch.isfinite(chosen.scores[0][0, :330]).all()


@pytest.mark.parametrize("rung", RUNGS)
def test_padding_and_beams_change_no_text(rung: str, exported: Any) -> None:
    """A batch of different lengths, and caches whose rows are put in another order."""
    _, theirs, _ = exported(rung)
    draws = torch.Generator().manual_seed(2)
    short, long = (torch.randint(1, 330, (1, n), generator=draws) for n in (9, 21))
    padded = torch.cat((torch.zeros(1, 12, dtype=torch.long), short), dim=1)
    mask = torch.ones(2, 21, dtype=torch.long)
    mask[0, :12] = 0
    how = {"do_sample": False, "eos_token_id": None, "max_new_tokens": 20}
    for beams in (1, 3):
        batch = theirs.generate(
            torch.cat((padded, long)), attention_mask=mask, num_beams=beams, **how
        )
        for row, prompt in enumerate((short, long)):
            alone = theirs.generate(prompt, num_beams=beams, use_cache=False, **how)
            assert batch[row, 21:].tolist() == alone[0, prompt.size(1) :].tolist()


def spelled() -> st.SearchStrategy[str]:
    """Texts of every kind of character, and of few; with special tokens spelled in them."""
    pieces = st.sampled_from([*SPECIAL_TOKENS, *WORDS, "a", "aa", "ab", " ", "\n", "'S", "12345"])
    lists = st.lists(st.one_of(pieces, st.text(max_size=5)), max_size=30)
    return st.one_of(st.text(max_size=200), lists.map("".join), st.text("aab ", max_size=200))


def test_the_fast_tokenizer_gives_our_tokens(exported: Any, tokenizer: Tokenizer) -> None:
    theirs = transformers.AutoTokenizer.from_pretrained(exported("run1")[2], trust_remote_code=True)
    assert theirs.is_fast and len(theirs) == tokenizer.vocab_size

    @settings(max_examples=600, deadline=None)
    @given(spelled())
    def same(text: str) -> None:
        ours = tokenizer.encode(text, prepend_bos=True)
        assert theirs(text)["input_ids"] == ours
        assert theirs(text, add_special_tokens=False)["input_ids"] == ours[1:]
        assert theirs.decode(ours[1:]) == text

    same()


def test_the_folder_needs_nothing_of_this_package(exported: Any, tmp_path: Path) -> None:
    folder = exported("run6")[2]
    code = (folder / "modeling_nanogpt2.py").read_text("utf-8")
    roots = {
        (getattr(node, "module", None) or node.names[0].name).split(".")[0]
        for node in ast.walk(ast.parse(code))
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    assert roots == {"__future__", "typing", "torch", "transformers"}
    script = f"""
import sys
sys.modules["nanogpt2"] = None
from transformers import AutoModelForCausalLM, AutoTokenizer
folder = {str(folder)!r}
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
text = tokenizer("the old", return_tensors="pt")
print(model.generate(**text, max_new_tokens=3, do_sample=False).shape[0])
"""
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.stdout == "1\n", ran.stderr


def test_core_asks_the_folder_what_it_asks_the_model(
    exported: Any, tokenizer: Tokenizer, small_bundle: Path
) -> None:
    ours, _, folder = exported("run6")
    theirs = load_huggingface(str(folder), torch.device("cpu"), trust=True)
    found, wanted = (
        {label: task.correct for label, task in evaluate_core(*asked, small_bundle).tasks.items()}
        for asked in (theirs, (ours, tokenizer))
    )
    assert found == wanted


def test_lm_evaluation_harness_gives_the_same_score(
    exported: Any, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    lm_eval = pytest.importorskip("lm_eval", reason="the package lm-eval is missing")
    from lm_eval.tasks import TaskManager

    from nanogpt2.evals.harness import HarnessModel

    draws = random.Random(5)
    rows = [
        {
            "question": " ".join(draws.choices(WORDS, k=6)),
            "choices": [f" {' '.join(draws.choices(WORDS, k=2))}" for _ in range(4)],
            "answer": draws.randrange(4),
        }
        for _ in range(24)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    files = {"test": str(tmp_path / "rows.jsonl")}
    task = {
        "task": "made_here",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files, "cache_dir": str(tmp_path / "cache")},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }
    ours, _, folder = exported("run6")
    how = f"pretrained={folder},trust_remote_code=True,add_bos_token=True,dtype=float32"
    scored = []
    for model, named in (
        (HarnessModel(engine=Engine(ours, tokenizer)), {}),
        ("hf", {"model_args": how, "device": "cpu", "batch_size": 4}),
    ):
        manager = TaskManager(include_defaults=False)  # not its thousands of files
        result = lm_eval.simple_evaluate(
            model, tasks=[task], bootstrap_iters=0, task_manager=manager, **named
        )
        answers = [sample["resps"] for sample in result["samples"]["made_here"]]
        scored.append(torch.tensor([[float(r[0][0]) for r in row] for row in answers]))
        scored.append(result["results"]["made_here"]["acc,none"])
    torch.testing.assert_close(scored[0], scored[2], rtol=1e-4, atol=1e-3)
    assert scored[1] == scored[3] and 0 < scored[1] < 1
