"""The evaluator's outcomes are those of the plain loop, for every kind of model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from nanogpt2.config import GPTConfig
from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.errors import StopRequested, UserError
from nanogpt2.evals.core import CoreEvaluator, CoreResult, evaluate_core
from nanogpt2.evals.core.fast.layout import Job
from nanogpt2.evals.core.fast.scoring import GPTScorer, Scorer, scorer_for
from nanogpt2.evals.core.plain import plain_core
from nanogpt2.evals.core.prompts import Option
from nanogpt2.evals.core.results import Score, judge
from nanogpt2.evals.core.tasks import Kind, Task
from nanogpt2.model.gpt import GPT
from tests.distributed import run_ranks
from tests.evals.conftest import TASKS, small_config, trained_looking

NAN = math.nan


def outcomes(result: CoreResult) -> dict[str, list[bool]]:
    return {label: task.correct for label, task in result.tasks.items()}


@pytest.mark.parametrize(
    "changes", [{}, {"smear": True, "smear_channels": 8, "backout": True}, {"n_kv_head": 1}]
)
def test_small_bundle_equals_the_plain_loop(
    small_bundle: Path, tokenizer: Tokenizer, changes: dict[str, Any]
) -> None:
    model = trained_looking(GPT(small_config(**changes)))
    found = evaluate_core(model, tokenizer, small_bundle)
    plain = plain_core(model, tokenizer, small_bundle)
    assert outcomes(found) == outcomes(plain)
    assert found.core == pytest.approx(plain.core)
    for label, task in plain.tasks.items():
        assert found.tasks[label].accuracy == task.accuracy
        assert found.tasks[label].centered == pytest.approx(task.centered)
    everything = [right for task in plain.tasks.values() for right in task.correct]
    assert 0 < sum(everything) < len(everything)


@pytest.mark.parametrize("most", [1, 5])
def test_samples_equal_the_plain_loop(
    small_bundle: Path, tokenizer: Tokenizer, model: GPT, most: int
) -> None:
    found = evaluate_core(model, tokenizer, small_bundle, max_per_task=most)
    assert outcomes(found) == outcomes(plain_core(model, tokenizer, small_bundle, most))
    assert found.is_sample and f"at most {most} examples" in found.label


LONG = ("squad", "coqa", "boolq", "bigbench_language_identification", "agi_eval_lsat_ar")
"""left to the benchmark: their prompts are thousands of this tokenizer's tokens"""


def test_real_tasks_equal_the_plain_loop(
    shared_dir: Path, core_tasks: list[Task], tokenizer: Tokenizer
) -> None:
    bundle = shared_dir / "core_eval_bundle"
    model = trained_looking(GPT(small_config(sequence_len=1024)))
    tasks = [task.label for task in core_tasks if task.label not in LONG]
    found = evaluate_core(model, tokenizer, bundle, 1, tasks=tasks)
    assert outcomes(found) == outcomes(plain_core(model, tokenizer, bundle, 1, tasks=tasks))


def test_a_model_with_few_positions_reads_the_end(small_bundle: Path, tokenizer: Tokenizer) -> None:
    config = GPTConfig.gpt2(
        sequence_len=40, vocab_size=300, n_layer=2, n_head=2, n_kv_head=2, n_embd=32
    )
    model = trained_looking(GPT(config))
    assert GPTScorer(model).limit() == 40
    found = evaluate_core(model, tokenizer, small_bundle)
    assert outcomes(found) == outcomes(plain_core(model, tokenizer, small_bundle, limit=40))
    long = GPT(GPTConfig.gpt2(**{**config_sizes(config), "sequence_len": 900}))
    whole = plain_core(trained_looking(long), tokenizer, small_bundle)
    assert outcomes(found) != outcomes(whole)


def config_sizes(config: GPTConfig) -> dict[str, int]:
    return {
        n: getattr(config, n) for n in ("vocab_size", "n_layer", "n_head", "n_kv_head", "n_embd")
    }


class Bigram:
    """A function of tokens that is no module: logits from the last token alone."""

    def __init__(self, vocabulary: int, uniform: bool = False, limit: int | None = None) -> None:
        table = torch.randn(vocabulary, vocabulary, generator=torch.Generator().manual_seed(0))
        self.table = torch.zeros_like(table) if uniform else table
        self.max_seq_len = limit
        self.longest = 0

    def __call__(self, idx: torch.Tensor) -> torch.Tensor:
        self.longest = max(self.longest, idx.size(1))
        return self.table[idx]


def test_any_function_can_be_scored(small_bundle: Path, tokenizer: Tokenizer) -> None:
    model = Bigram(300)
    assert type(scorer_for(model)) is Scorer
    found = evaluate_core(model, tokenizer, small_bundle)
    assert outcomes(found) == outcomes(plain_core(model, tokenizer, small_bundle))


def test_a_limit_of_a_function_is_kept(small_bundle: Path, tokenizer: Tokenizer) -> None:
    model = Bigram(300, limit=30)
    found = evaluate_core(model, tokenizer, small_bundle)
    assert model.longest <= 30
    assert outcomes(found) == outcomes(plain_core(model, tokenizer, small_bundle, limit=30))


def test_ties_go_to_the_first_option(small_bundle: Path, tokenizer: Tokenizer) -> None:
    result = evaluate_core(Bigram(300, uniform=True), tokenizer, small_bundle, tasks=["schema"])
    assert [o.choice for o in result.tasks["schema"].outcomes] == [0] * 12


def test_equal_options_never_win_by_rounding(
    small_bundle: Path, tokenizer: Tokenizer, model: GPT
) -> None:
    result = evaluate_core(model, tokenizer, small_bundle, tasks=["choices", "choices_zeroshot"])
    evaluator = CoreEvaluator(tokenizer, small_bundle, tasks=["choices", "choices_zeroshot"])
    seen = 0
    for sample in evaluator.samples:
        for item, outcome in zip(
            sample.pool, result.tasks[sample.task.label].outcomes, strict=True
        ):
            for other, text in enumerate(item["choices"]):
                first = item["choices"].index(text)
                if first < other:
                    seen += 1
                    assert outcome.losses[first] == outcome.losses[other]
                    assert outcome.choice != other
    assert seen


@pytest.mark.parametrize(
    ("losses", "choice"),
    [
        ([2.0, 1.0, 3.0], 1),
        ([1.0, 1.0], 0),
        ([NAN, 1.0], 0),
        ([1.0, NAN], 0),
        ([2.0, NAN, 1.0], 2),
        ([NAN, NAN], 0),
    ],
)
def test_choice_among_ties_and_empty_spans(losses: list[float], choice: int) -> None:
    scores = [Score(loss, False) for loss in losses]
    outcome = judge(Kind.MULTIPLE_CHOICE, scores, 1)
    assert (outcome.choice, outcome.correct) == (choice, choice == 1)


def test_nothing_to_score_needs_no_model() -> None:
    option = Option(torch.tensor([5, 6]).numpy(), 2)
    ((_, score),) = Scorer(None).run([Job((0, 0, 0), option)])
    assert math.isnan(score.loss) and not score.matches


def test_batches_of_any_size_agree(small_bundle: Path, tokenizer: Tokenizer, model: GPT) -> None:
    class Small(GPTScorer):
        def max_tokens(self) -> int:
            return 64

    evaluator = CoreEvaluator(tokenizer, small_bundle, max_per_task=6)
    jobs = [job for chunk in evaluator.chunks(None, 0, 1) for job in chunk]
    large, small = dict(GPTScorer(model).run(jobs)), dict(Small(model).run(jobs))
    assert large.keys() == small.keys() == {job.key for job in jobs}
    for key, score in large.items():
        assert score.matches == small[key].matches
        if not math.isnan(score.loss):
            assert small[key].loss == pytest.approx(score.loss, abs=1e-4)


def test_a_batch_that_does_not_fit_is_halved(
    small_bundle: Path, tokenizer: Tokenizer, model: GPT
) -> None:
    class Tight(GPTScorer):
        refused = 0

        def measure(self, batch: Any) -> Any:
            if batch.size > 300:
                self.refused += 1
                raise torch.cuda.OutOfMemoryError("too large")
            return super().measure(batch)

    evaluator = CoreEvaluator(tokenizer, small_bundle, max_per_task=3)
    jobs = [job for chunk in evaluator.chunks(None, 0, 1) for job in chunk]
    scorer = Tight(model)
    assert dict(scorer.run(jobs)).keys() == {job.key for job in jobs}
    assert scorer.refused


def test_what_the_allocator_holds_without_using_it_counts_as_free(
    model: GPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a training it holds nearly all of the GPU; a stand-in for the driver says so."""
    scorer = GPTScorer(model)
    scorer.device = torch.device("cuda")
    reserved = {"memory_reserved": 70 << 30, "memory_allocated": 40 << 30}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1 << 20, 80 << 30))
    for name, size in reserved.items():
        monkeypatch.setattr(torch.cuda, name, lambda _, size=size: size)
    assert scorer.max_tokens() == 131072


def test_prompts_are_kept_for_the_next_evaluation(
    small_bundle: Path, tokenizer: Tokenizer, model: GPT
) -> None:
    evaluator = CoreEvaluator(tokenizer, small_bundle, max_per_task=4)
    model.train()
    first = evaluator.evaluate(model)
    assert model.training
    evaluator.tokenizer = None  # a second look must not encode again
    calls: list[tuple[int, int]] = []
    with pytest.raises(AttributeError):
        CoreEvaluator(None, small_bundle, max_per_task=4).evaluate(model)
    second = evaluator.evaluate(model, lambda done, total: calls.append((done, total)))
    assert outcomes(first) == outcomes(second)
    assert calls[-1] == (4 * len(TASKS), 4 * len(TASKS))


def in_rank(rank: int, world: int, bundle: Path, merges: Path) -> dict[str, list[bool]]:
    model = trained_looking(GPT(small_config()))
    return outcomes(evaluate_core(model, Tokenizer.load(merges), bundle))


def test_ranks_share_the_work_and_all_know_the_result(
    small_bundle: Path, tokenizer: Tokenizer, model: GPT, tmp_path: Path
) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    results = run_ranks(2, in_rank, small_bundle, tmp_path / "tokenizer")
    alone = outcomes(evaluate_core(model, tokenizer, small_bundle))
    assert results == [alone, alone]


def test_dclm_is_another_measure(small_bundle: Path, tokenizer: Tokenizer, model: GPT) -> None:
    result = evaluate_core(model, tokenizer, small_bundle, protocol="dclm")
    assert result.protocol == "dclm"
    assert outcomes(result) != outcomes(evaluate_core(model, tokenizer, small_bundle))
    # accuracy of a task with categories is the mean over them
    task = result.tasks["words"]
    sample = next(
        s for s in CoreEvaluator(tokenizer, small_bundle).samples if s.task.label == "words"
    )
    parts = []
    for name in ("land", "sea"):
        part = [
            c for c, item in zip(task.correct, sample.pool, strict=True) if item["category"] == name
        ]
        parts.append(sum(part) / len(part))
    assert task.accuracy == pytest.approx(sum(parts) / 2)


def test_every_outcome_is_saved(small_bundle: Path, tokenizer: Tokenizer, model: GPT) -> None:
    result = evaluate_core(model, tokenizer, small_bundle)
    saved = json.loads(json.dumps(result.to_dict()), parse_constant=lambda name: 1 / 0)
    assert saved["core"] == result.core and saved["protocol"] == "nanochat"
    assert not saved["sample"] and "not CORE" in saved["label"]
    for label, task in result.tasks.items():
        assert saved["tasks"][label]["correct"] == [int(right) for right in task.correct]
    losses = saved["tasks"]["choices"]["losses"]
    assert any(loss is None for options in losses for loss in options)


def test_user_errors(small_bundle: Path, tokenizer: Tokenizer, model: GPT) -> None:
    with pytest.raises(UserError, match="unknown task 'nope'; the bundle has choices"):
        evaluate_core(model, tokenizer, small_bundle, tasks=["nope"])
    with pytest.raises(UserError, match="unknown protocol 'mine'; choose one of nanochat, dclm"):
        evaluate_core(model, tokenizer, small_bundle, protocol="mine")
    with pytest.raises(UserError, match="max_per_task is 0"):
        evaluate_core(model, tokenizer, small_bundle, max_per_task=0)
    with pytest.raises(UserError, match="has 300 tokens and the model knows 128"):
        evaluate_core(GPT(small_config(vocab_size=128)), tokenizer, small_bundle)


def evaluate_until_told(rank: int, world: int, bundle: Path, folder: Path) -> str:
    evaluator = CoreEvaluator(Tokenizer.load(folder), bundle, max_per_task=2)
    model = trained_looking(GPT(small_config()))
    try:
        evaluator.evaluate(model, stop=lambda: rank == 1)
    except StopRequested:
        return "stopped"
    return "measured"


def test_all_ranks_stop_when_one_is_told_to(
    small_bundle: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    told = run_ranks(2, evaluate_until_told, small_bundle, tmp_path / "tokenizer")
    assert told == ["stopped"] * 2
