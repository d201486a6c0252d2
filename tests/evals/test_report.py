"""The table, the sentences and the figure that a reader sees."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.evals.core import CoreResult, TaskResult, evaluate_core
from nanogpt2.evals.core.bundle import published_scores
from nanogpt2.evals.core.report import core_table, verdict
from nanogpt2.evals.core.results import Outcome, build_result
from nanogpt2.evals.core.statistics import baseline_of
from nanogpt2.evals.core.tasks import Task
from nanogpt2.model.gpt import GPT
from nanogpt2.reporting.charts import core_chart


def text_of(table: object) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def gpt2_like(shared_dir: Path, core_tasks: list[Task]) -> CoreResult:
    """Outcomes with the accuracies published for the 1.5B."""
    scores = published_scores(shared_dir / "core_eval_bundle")["1.5B"]
    samples = [task.sample(1000) for task in core_tasks]
    found = []
    for sample in samples:
        right = round(scores[sample.task.label] * sample.count)
        found.append([Outcome(i < right, 0, [1.0]) for i in range(sample.count)])
    return build_result(samples, found, "nanochat", 1000)


def test_gpt2s_outcomes_give_gpt2s_core(gpt2_like: CoreResult) -> None:
    assert gpt2_like.core == pytest.approx(0.256525, abs=1e-6)
    assert gpt2_like.core_corrected == pytest.approx(0.2309, abs=5e-5)
    assert gpt2_like.standard_error == pytest.approx(0.007, abs=0.0006)
    assert gpt2_like.label == "CORE, sample of at most 1,000 examples a task"


def test_table_stands_beside_the_four_sizes(gpt2_like: CoreResult, shared_dir: Path) -> None:
    text = text_of(core_table(gpt2_like, published_scores(shared_dir / "core_eval_bundle")))
    for part in ("GPT-2 124M", "GPT-2 355M", "GPT-2 774M", "GPT-2 1.5B", "hellaswag_zeroshot"):
        assert part in text
    last = text.strip().splitlines()[-2]
    for core in ("0.1139", "0.1849", "0.2146", "0.2565", "+0.2309"):
        assert core in last


def test_gpt2s_score_stays_where_a_model_is_right_in_all_of_a_task(
    gpt2_like: CoreResult, shared_dir: Path
) -> None:
    perfect = replace(gpt2_like.tasks["boolq"], accuracy=1.0, centered=1.0)
    result = replace(gpt2_like, tasks={**gpt2_like.tasks, "boolq": perfect})
    text = text_of(core_table(result, published_scores(shared_dir / "core_eval_bundle")))
    assert "0.2565" in text.strip().splitlines()[-2]
    assert result.to_dict()["tasks"]["boolq"]["baseline"] == pytest.approx(0.62)


def test_baselines_come_back(gpt2_like: CoreResult, core_tasks: list[Task]) -> None:
    wanted = {task.label: task.baseline for task in core_tasks}
    found = {k: baseline_of(t.accuracy, t.centered) for k, t in gpt2_like.tasks.items()}
    assert found == pytest.approx(wanted)


def test_verdict_of_a_whole_core(gpt2_like: CoreResult) -> None:
    whole = replace(
        gpt2_like,
        core=0.25851,
        tasks={k: replace(t, available=len(t.correct)) for k, t in gpt2_like.tasks.items()},
    )
    assert "this is 0.0020 above it, 0.3 standard errors" in verdict(whole.to_dict())
    assert "other protocol" in verdict(replace(whole, protocol="dclm").to_dict())


def test_verdict_of_a_sample_compares_nothing(gpt2_like: CoreResult) -> None:
    assert "sample of at most 1,000" in verdict(gpt2_like.to_dict())
    assert "Not to be compared with a published CORE" in verdict(gpt2_like.to_dict())


def test_figure_is_one_svg_with_a_name(
    small_bundle: Path, tokenizer: Tokenizer, model: GPT
) -> None:
    result = evaluate_core(model, tokenizer, small_bundle, max_per_task=6)
    svg = core_chart(result.to_dict({"1.5B": {"choices": 0.5, "words": 0.2}}))
    root = ET.fromstring(svg)
    assert root.tag.endswith("svg") and root.attrib["role"] == "img"
    assert "http" not in "".join(
        value for node in root.iter() for key, value in node.attrib.items() if key.endswith("href")
    )


def test_figure_of_a_perfect_task() -> None:
    result = CoreResult(1.0, {"easy": TaskResult(1.0, 1.0, [True])})
    assert core_chart(result.to_dict()).startswith("<svg")
