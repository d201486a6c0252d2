"""Rows and batches hold every sequence, cost less than they would apart, and stay within bounds."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt2.evals.core.fast.layout import Batch, Job, Row, plan_batches, share_prefixes
from nanogpt2.evals.core.prompts import Option

TOKENS = st.lists(st.integers(0, 2), min_size=2, max_size=60)


@st.composite
def jobs_strategy(draw: st.DrawFn) -> list[Job]:
    """Sequences that begin with one of a few common texts."""
    beginnings = draw(st.lists(TOKENS, min_size=1, max_size=3))
    count = draw(st.integers(1, 12))
    jobs = []
    for number in range(count):
        tokens = draw(st.sampled_from(beginnings)) + draw(st.lists(st.integers(0, 2), max_size=20))
        start = draw(st.integers(1, len(tokens) - 1))
        jobs.append(Job((0, number, 0), Option(np.array(tokens, dtype=np.int32), start)))
    return jobs


def read_back(batch: Batch) -> dict[tuple, tuple[list[int], list[int]]]:
    """Of every job: the tokens seen from its last column, and the tokens scored."""
    found = {}
    width = batch.prefix_width + batch.ending_width
    for key, begin, end in batch.spans:
        row, column = divmod(int(batch.flat[end - 1]), width)
        prefix = batch.tokens[row, : batch.prefix_lengths[row]]
        if column < batch.prefix_width:
            seen = prefix[: column + 1]
        else:
            s = column - batch.prefix_width
            own = (batch.segments[row] == batch.segments[row, s]) & (
                batch.offsets[row] <= batch.offsets[row, s]
            )
            seen = np.concatenate((prefix, batch.tokens[row, batch.prefix_width :][own]))
        found[key] = seen.tolist(), batch.targets[begin:end].tolist()
    return found


@settings(max_examples=60)
@given(jobs=jobs_strategy(), most=st.integers(1, 400))
def test_every_job_is_laid_out_whole(jobs: list[Job], most: int) -> None:
    rows = share_prefixes(jobs)
    batches = plan_batches(rows, most)
    found = {}
    for batch in batches:
        found |= read_back(batch)
        if len(batch.rows) > 1:
            assert batch.size <= most
    assert found == {
        job.key: (job.inputs.tolist(), job.option.tokens[job.option.start :].tolist())
        for job in jobs
    }
    apart = sum(len(job.inputs) for job in jobs)
    assert sum(len(row.prefix) + row.endings_length for row in rows) <= apart


@given(jobs=jobs_strategy())
def test_scored_positions_lie_one_before_their_targets(jobs: list[Job]) -> None:
    for batch in plan_batches([Row(job.inputs, [job]) for job in jobs], 500):
        assert batch.ending_width == 0
        for key, begin, end in batch.spans:
            option = jobs[key[1]].option
            columns = batch.flat[begin:end] % batch.prefix_width
            assert columns.tolist() == list(range(option.start - 1, len(option.tokens) - 1))


def test_four_letters_behind_one_question_cost_one_row() -> None:
    question = np.arange(100, dtype=np.int32)
    jobs = [Job((0, 0, i), Option(np.append(question, np.int32(200 + i)), 100)) for i in range(4)]
    (row,) = share_prefixes(jobs)
    assert len(row.prefix) == 100 and row.endings_length == 0


def test_a_story_is_read_once_for_all_its_questions() -> None:
    draws = np.random.default_rng(0)
    story = draws.integers(0, 999, 300)
    jobs = []
    for i in range(6):
        tokens = np.concatenate((story, draws.integers(0, 999, 30))).astype(np.int32)
        jobs.append(Job((0, i, 0), Option(tokens, 320)))
    (row,) = share_prefixes(jobs)
    assert len(row.prefix) == 300 and row.endings_length == 6 * 29


def test_equal_options_share_an_ending() -> None:
    draws = np.random.default_rng(0)
    prefix = draws.integers(0, 999, 50)
    a, b = draws.integers(0, 999, 9), draws.integers(0, 999, 9)
    jobs = [
        Job((0, 0, i), Option(np.concatenate((prefix, x)).astype(np.int32), 50))
        for i, x in enumerate((a, b, a))
    ]
    (row,) = share_prefixes(jobs)
    assert len(row.endings) == 2
    ending = {job.key[2]: e for job, e in zip(row.jobs, row.ending_of, strict=True)}
    assert ending[0] == ending[2] != ending[1]


def test_little_is_computed_for_nothing() -> None:
    draws = np.random.default_rng(0)
    jobs = [
        Job((0, i, 0), Option(draws.integers(0, 999, n).astype(np.int32), n - 2))
        for i, n in enumerate(draws.integers(20, 3000, 500))
    ]
    batches = plan_batches([Row(job.inputs, [job]) for job in jobs], 8192)
    used = sum(len(job.inputs) for job in jobs)
    assert used <= sum(batch.size for batch in batches) < 1.03 * used
