"""Our model in lm-evaluation-harness, on a small task made here."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

lm_eval = pytest.importorskip("lm_eval", reason="needs the extra: pip install 'nanogpt2[harness]'")

from lm_eval.tasks import TaskManager  # noqa: E402

from nanogpt2.data.tokenizer import Tokenizer  # noqa: E402
from nanogpt2.evals.harness import HarnessModel  # noqa: E402
from nanogpt2.inference.engine import Engine  # noqa: E402
from nanogpt2.model.gpt import GPT  # noqa: E402


@pytest.fixture(scope="module")
def harness(model: GPT, tokenizer: Tokenizer) -> HarnessModel:
    return HarnessModel(engine=Engine(model, tokenizer))


class Request:
    """What the harness hands over."""

    def __init__(self, *args: object) -> None:
        self.args = args


@torch.no_grad()
def log_probability(model: GPT, tokens: list[int], start: int) -> float:
    logits = model(torch.tensor([tokens]))[0].double().log_softmax(dim=-1)
    return sum(logits[i - 1, tokens[i]].item() for i in range(start, len(tokens)))


def test_log_likelihoods_are_sums_over_the_continuation(
    harness: HarnessModel, model: GPT, tokenizer: Tokenizer
) -> None:
    pairs = [("the old harbour", " keeps"), ("the old harbour", " a light"), ("", "late")]
    found = harness.loglikelihood([Request(*pair) for pair in pairs], disable_tqdm=True)
    for (context, continuation), (value, _) in zip(pairs, found, strict=True):
        whole = tokenizer.encode(context + continuation, prepend_bos=True)
        start = len(tokenizer.encode(context, prepend_bos=True))
        assert value == pytest.approx(log_probability(model, whole, start), abs=1e-3)


def test_rolling_log_likelihood_predicts_every_token_once(
    harness: HarnessModel, model: GPT, tokenizer: Tokenizer
) -> None:
    text = "the quiet light for boats that come late in the rain of autumn " * 3
    tokens = tokenizer.encode(text, prepend_bos=True)
    length = model.config.sequence_len
    assert len(tokens) > 2 * length
    wanted = sum(
        log_probability(model, tokens[s : s + length + 1], 1)
        for s in range(0, len(tokens) - 1, length)
    )
    (found,) = harness.loglikelihood_rolling([Request(text)])
    assert found == pytest.approx(wanted, abs=1e-2)


def test_generation_stops_at_the_stop_text(harness: HarnessModel) -> None:
    (whole,) = harness.generate_until([Request("the old", {"until": [], "max_gen_toks": 12})])
    stop = whole[3:5]
    (cut,) = harness.generate_until([Request("the old", {"until": [stop], "max_gen_toks": 12})])
    assert cut == whole.split(stop)[0]


def test_a_local_task_runs(harness: HarnessModel, tmp_path: Path) -> None:
    rows = [
        {"question": "the old harbour keeps", "choices": ["a light", "rain rain"], "answer": i % 2}
        for i in range(6)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = {
        "task": "made_here",
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(tmp_path / "rows.jsonl")},
            "cache_dir": str(tmp_path / "cache"),
        },
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc"}],
    }
    result = lm_eval.simple_evaluate(
        harness,
        tasks=[task],
        bootstrap_iters=0,
        task_manager=TaskManager(include_defaults=False),  # not its thousands of files
    )
    accuracy = result["results"]["made_here"]["acc,none"]
    # both answers come equally often, and the same two choices are asked each time
    assert math.isclose(accuracy, 0.5)
