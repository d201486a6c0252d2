"""Token sequences and scored spans: against the plain loop, and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiktoken
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nanogpt2.data.tokenizer import Tokenizer
from nanogpt2.evals.core.bundle import load_tasks
from nanogpt2.evals.core.fast.encoding import PromptBuilder, line_breaks_end_tokens
from nanogpt2.evals.core.plain import plain_sequences
from nanogpt2.evals.core.prompts import Option, shared_length
from nanogpt2.evals.core.tasks import Kind, Task


class Letters:
    """One token a character."""

    bos_id = 0

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]


def task_of(kind: Kind, items: list[dict], shots: int = 0, delimiter: str = " ") -> Task:
    return Task("made", kind, shots, delimiter, 0.25, 0.25, False, items)


def built(task: Task, index: int, protocol: str, limit: int | None = None) -> list[Option]:
    return PromptBuilder(Letters(), protocol, limit).options(task.sample(), [index])[0]


def text_of(option: Option) -> tuple[str, str]:
    """What is read and what is scored, with the begin-of-sequence token as ^."""
    characters = "".join(chr(token) if token else "^" for token in option.tokens)
    return characters[: option.start], characters[option.start :]


def check_against_plain(bundle: Path, tasks: list[Task], tokenizer: Tokenizer, count: int) -> None:
    described = yaml.safe_load((bundle / "core.yaml").read_text())["icl_tasks"]
    entries = {entry["label"]: entry for entry in described}
    builder = PromptBuilder(tokenizer, "nanochat", None)
    for task in tasks:
        sample = task.sample(count)
        for index, options in enumerate(builder.options(sample, range(sample.count))):
            wanted = plain_sequences(tokenizer, sample.pool, index, entries[task.label])
            assert [option.tokens.tolist() for option in options] == wanted[0]
            # of equal contexts everything is shared, and the first token is never scored
            assert [option.start for option in options] == [max(1, start) for start in wanted[1]]


def test_small_bundle_gives_the_plain_sequences(small_bundle: Path, tokenizer: Tokenizer) -> None:
    check_against_plain(small_bundle, load_tasks(small_bundle), tokenizer, 12)


def test_all_22_tasks_give_the_plain_sequences(
    shared_dir: Path, core_tasks: list[Task], tokenizer: Tokenizer
) -> None:
    check_against_plain(shared_dir / "core_eval_bundle", core_tasks, tokenizer, 3)


def test_piqa_has_options_that_begin_the_other(core_tasks: list[Task]) -> None:
    (task,) = (task for task in core_tasks if task.label == "piqa")
    sample = task.sample()
    empty = [
        index
        for index, item in enumerate(sample.pool)
        if item["choices"][0].startswith(item["choices"][1])
        or item["choices"][1].startswith(item["choices"][0])
    ]
    built = PromptBuilder(Letters(), "nanochat", None).options(sample, empty)
    assert built
    for options in built:
        assert any(option.start == len(option.tokens) for option in options)


PIECES = st.text(st.sampled_from("ab1 ?.'\n\r\t\u00a0\u3000é"), max_size=30)


@given(text=PIECES)
def test_pieces_are_encoded_as_the_whole(tokenizer: Tokenizer, text: str) -> None:
    builder = PromptBuilder(tokenizer, "nanochat", None)
    assert builder.cuts
    assert builder.encode([text])[0].tolist() == tokenizer.encode(text)


def test_unknown_split_patterns_are_not_cut() -> None:
    ranks = {bytes([i]): i for i in range(256)} | {b"\n\n": 256}
    gpt2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    encoding = tiktoken.Encoding(
        "gpt2", pat_str=gpt2, mergeable_ranks=ranks, special_tokens={"<|bos|>": 257}
    )
    tokenizer = Tokenizer(encoding)
    assert not line_breaks_end_tokens(tokenizer)
    # why: "\n\n" is one token at the end of a text and two before a letter
    assert tokenizer.encode("a\n\n") + tokenizer.encode("b") != tokenizer.encode("a\n\nb")
    builder = PromptBuilder(tokenizer, "nanochat", None)
    assert builder.encode(["a\n\nb"])[0].tolist() == tokenizer.encode("a\n\nb")


def test_multiple_choice_scores_behind_the_shared_beginning() -> None:
    item = {"query": "Is it?", "choices": ["no", "not so", " ?"], "gold": 0}
    options = built(task_of(Kind.MULTIPLE_CHOICE, [item, item]), 0, "nanochat")
    assert [text_of(o) for o in options] == [
        ("^Is it? ", "no"),
        ("^Is it? ", "not so"),
        ("^Is it? ", " ?"),
    ]


def test_an_option_that_begins_the_other_has_nothing_to_score() -> None:
    item = {"query": "Q", "choices": ["yes", "yes, but"], "gold": 1}
    options = built(task_of(Kind.MULTIPLE_CHOICE, [item, item]), 0, "nanochat")
    assert [text_of(o)[1] for o in options] == ["", ", but"]


def test_schema_scores_the_shared_end() -> None:
    item = {"context_options": ["Ann saw Bo so Ann", "Ann saw Bo so Bo"], "continuation": "ran."}
    options = built(task_of(Kind.SCHEMA, [{**item, "gold": 0}] * 2), 0, "nanochat")
    assert [text_of(o) for o in options] == [
        ("^Ann saw Bo so Ann", " ran."),
        ("^Ann saw Bo so Bo", " ran."),
    ]


def test_language_modeling_trims_the_context_and_the_delimiter() -> None:
    items = [
        {"context": " one \n", "continuation": "1"},
        {"context": "two ", "continuation": " 2"},
    ]
    task = task_of(Kind.LANGUAGE_MODELING, items, shots=1, delimiter="\nA: ")
    # the second of the shuffled pair shows the other in front
    sample = task.sample()
    option = PromptBuilder(Letters(), "nanochat", None).options(sample, [0])[0][0]
    shown, asked = (sample.pool[i] for i in (1, 0))
    read, scored = text_of(option)
    before = f"{shown['context'].strip()}\nA: {shown['continuation']}\n\n"
    assert read == f"^{before}{asked['context'].strip()}\nA:"
    assert scored == f" {asked['continuation']}"


def test_dclm_scores_every_token_of_a_choice_and_begins_with_none() -> None:
    item = {"query": "Q: ", "choices": ["aye", "ayes"], "gold": 0}
    task = task_of(Kind.MULTIPLE_CHOICE, [item, item], shots=1, delimiter=" ")
    options = built(task, 0, "dclm")
    assert [text_of(o) for o in options] == [("Q: aye\nQ:", " aye"), ("Q: aye\nQ:", " ayes")]


def test_dclm_schema_scores_the_continuation_alone() -> None:
    item = {"context_options": ["a then", "b then"], "continuation": "it ended", "gold": 1}
    shown = built(task_of(Kind.SCHEMA, [item, item], shots=1), 0, "dclm")
    assert text_of(shown[0]) == ("b then it ended\na then", " it ended")
    alone = built(task_of(Kind.SCHEMA, [item, item]), 0, "dclm")
    assert [text_of(o) for o in alone] == [("a then", " it ended"), ("b then", " it ended")]


def test_dclm_keeps_2048_tokens() -> None:
    item = {"context": "x" * 3000, "continuation": "end"}
    option = built(task_of(Kind.LANGUAGE_MODELING, [item, item]), 0, "dclm")[0]
    assert len(option.tokens) == 2048 and text_of(option)[1] == " end"


@pytest.mark.parametrize(
    ("limit", "read", "scored"),
    [(None, "abcd", "ef"), (6, "abcd", "ef"), (4, "cd", "ef"), (3, "d", "ef"), (2, "e", "f")],
)
def test_cropping_moves_the_span(limit: int | None, read: str, scored: str) -> None:
    option = Option(np.array([ord(c) for c in "abcdef"], dtype=np.int32), 4)
    assert text_of(option.cropped(limit)) == (read, scored)


@given(st.lists(st.text("ab", max_size=6), min_size=1, max_size=4))
def test_shared_length_is_that_of_the_texts(texts: list[str]) -> None:
    sequences = [np.array([ord(c) for c in text], dtype=np.int32) for text in texts]

    def naive(words: list[str]) -> int:
        count = 0
        while all(len(w) > count for w in words) and len({w[count] for w in words}) == 1:
            count += 1
        return count

    assert shared_length(sequences) == naive(texts)
    assert shared_length([row[::-1] for row in sequences]) == naive([text[::-1] for text in texts])
