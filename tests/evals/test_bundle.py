"""What a reader is told of a missing, damaged or odd bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nanogpt2.errors import UserError
from nanogpt2.evals.core.bundle import load_tasks, published_scores
from nanogpt2.evals.core.tasks import Kind, Task


@pytest.fixture
def broken(small_bundle: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(small_bundle, tmp_path / "bundle"))


def edit(name: str, line: int, change: Callable[[dict], object]) -> Callable[[Path], None]:
    """Change one JSON line of a task's file; what ``change`` returns is written if not None."""

    def apply(bundle: Path) -> None:
        path = bundle / "eval_data" / "some" / f"{name}.jsonl"
        lines = path.read_text().splitlines()
        item = json.loads(lines[line - 1])
        result = change(item)
        lines[line - 1] = result if isinstance(result, str) else json.dumps(item)
        path.write_text("\n".join(lines) + "\n")

    return apply


def write(name: str, text: str | bytes) -> Callable[[Path], None]:
    def apply(bundle: Path) -> None:
        data = text.encode() if isinstance(text, str) else text
        (bundle / name).write_bytes(data)

    return apply


BOMB = "a0: &a0 [x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
BOMB += "icl_tasks: [{label: *a9, dataset_uri: b, icl_task_type: schema, num_fewshot: [0]}]"

CASES = {
    "no tasks file": (lambda b: (b / "core.yaml").unlink(), r"core.yaml is missing"),
    "no metadata": (lambda b: (b / "eval_meta_data.csv").unlink(), r"eval_meta_data.csv is miss"),
    "no data": (
        lambda b: (b / "eval_data/some/schema.jsonl").unlink(),
        r"schema.jsonl is missing from the evaluation bundle; mend it",
    ),
    "not YAML": (write("core.yaml", "icl_tasks: [\n"), r"core.yaml does not describe tasks"),
    "other YAML": (write("core.yaml", "tasks: []\n"), r"core.yaml does not describe tasks"),
    "other kind": (
        write(
            "core.yaml",
            "icl_tasks: [{label: a, dataset_uri: b, icl_task_type: quiz, num_fewshot: [0]}]",
        ),
        r"core.yaml does not describe tasks .*quiz",
    ),
    "elsewhere": (
        write(
            "core.yaml",
            "icl_tasks: [{label: a, dataset_uri: ../b, icl_task_type: schema, num_fewshot: [0]}]",
        ),
        r"core.yaml does not describe tasks .*not in the bundle",
    ),
    "a bomb": (  # written out, the label would have 10^9 parts
        write("core.yaml", BOMB),
        r"core.yaml does not describe tasks .*a list where a text should be",
    ),
    "too deep": (edit("words", 3, lambda item: "[" * 20_000), r"line 3 is not valid JSON"),
    "baseline of 1": (
        write("eval_meta_data.csv", "Eval Task,Random baseline\nchoices,100\n"),
        r"the random baseline of choices is 100; it must be at least 0 and less than 100",
    ),
    **{
        f"baseline of {value}": (
            write("eval_meta_data.csv", f"Eval Task,Random baseline\nchoices,{value}\n"),
            rf"the random baseline of choices is {value}; it must be at least 0 and less than 100",
        )
        for value in ("-1", "250", "nan")
    },
    "no baselines": (write("eval_meta_data.csv", "a,b\n1,2\n"), r"does not list random baselines"),
    "not text": (write("core.yaml", b"\xff\xfe\x00"), r"core.yaml is damaged"),
    "not JSON": (edit("words", 3, lambda item: "{"), r"words.jsonl line 3 is not valid JSON"),
    "not an object": (edit("words", 3, lambda item: "[1]"), r"line 3 is not a JSON object"),
    "no field": (
        edit("choices", 5, lambda item: item.pop("query") and None),
        r"choices.jsonl line 5 has no field 'query'",
    ),
    "no category": (
        edit("words", 2, lambda item: item.pop("category") and None),
        r"words.jsonl line 2 has no field 'category'",
    ),
    "wrong type": (
        edit("schema", 4, lambda item: item.update(continuation=3)),
        r"schema.jsonl line 4: field 'continuation' is not a str",
    ),
    "gold too large": (
        edit("choices", 1, lambda item: item.update(gold=4)),
        r"choices.jsonl line 1: the gold index 4 is out of range, there are \d options",
    ),
    "gold negative": (
        edit("schema", 1, lambda item: item.update(gold=-1)),
        r"schema.jsonl line 1: the gold index -1 is out of range",
    ),
    "no options": (
        edit("choices", 1, lambda item: item.update(choices=[])),
        r"line 1: field 'choices' is not a list of texts",
    ),
    "nothing to predict": (
        edit("words", 1, lambda item: item.update(continuation=" ")),
        r"words.jsonl line 1 has an empty continuation",
    ),
    "no task": (write("core.yaml", "icl_tasks: []"), r"core.yaml does not describe tasks"),
    "too few": (
        write(
            "eval_data/some/words.jsonl", '{"context": "a", "continuation": "b", "category": ""}'
        ),
        r"words.jsonl has 1 examples and words shows 2",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_damaged_bundle_is_named(broken: Path, case: str) -> None:
    load_tasks(broken)
    damage, message = CASES[case]
    damage(broken)
    with pytest.raises(UserError, match=message):
        load_tasks(broken)


def test_a_byte_order_mark_is_passed_over(broken: Path) -> None:
    plain = load_tasks(broken)
    files = [broken / "core.yaml", broken / "eval_meta_data.csv", *broken.rglob("*.jsonl")]
    for path in files:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_tasks(broken) == plain


def test_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="core.yaml is missing from the evaluation bundle"):
        load_tasks(tmp_path / "nowhere")


def test_damaged_published_scores(broken: Path) -> None:
    assert published_scores(broken) == {}
    (broken / "openai-community-gpt2.csv").write_text("Task, Accuracy\ncopa, high\n")
    with pytest.raises(UserError, match="is not a table of accuracies"):
        published_scores(broken)


def test_few_shot_draws_are_those_of_a_list_of_the_others(small_bundle: Path) -> None:
    import random

    for task in load_tasks(small_bundle):
        sample = task.sample()
        for index in range(sample.count):
            others = [item for i, item in enumerate(sample.pool) if i != index]
            wanted = random.Random(1234 + index).sample(others, task.shots)
            assert sample.fewshot(index) == wanted
            assert sample.pool[index] not in sample.fewshot(index)


def test_samples_are_the_beginning_of_the_shuffled_whole(small_bundle: Path) -> None:
    for task in load_tasks(small_bundle):
        whole = task.sample()
        assert sorted(map(str, whole.pool)) == sorted(map(str, task.items))
        for most in (1, 5, 12, 50):
            sample = task.sample(most)
            assert sample.count == min(most, 12)
            assert sample.pool == whole.pool[: max(sample.count, task.shots + 1)]


def test_real_tasks_are_of_the_three_kinds(core_tasks: list[Task]) -> None:
    kinds = [task.kind for task in core_tasks]
    assert [kinds.count(kind) for kind in Kind] == [11, 2, 9]
