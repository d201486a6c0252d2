"""Bits per byte: by hand, exact over ranks, of a fixed number of tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt2.errors import StopRequested, UserError
from nanogpt2.evals.bits_per_byte import bits_per_byte
from nanogpt2.model.gpt import GPT
from tests.distributed import run_ranks
from tests.evals.conftest import small_config, trained_looking

SIZES = np.array([*([1, 2, 3, 4] * 74), 0, 0, 0, 0], dtype=np.int64)


def batches(count: int, seed: int = 0) -> list[tuple[Tensor, Tensor, dict]]:
    """Inputs, targets (some ignored, some special) and a loader's state."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        tokens = torch.randint(0, 300, (3, 17), generator=generator)
        targets = tokens[:, 1:].clone()
        targets[0, :3] = -1
        targets[1, 5] = 299
        made.append((tokens[:, :-1], targets, {}))
    return made


def by_hand(model: GPT, given: list, most: int | None = None) -> float:
    """One target at a time, in float64."""
    nats = size = seen = 0.0
    for inputs, targets, _ in given:
        logits = model(inputs).double().flatten(0, 1)
        for row, target in zip(logits, targets.flatten().tolist(), strict=True):
            if seen == most:
                break
            seen += 1
            if target >= 0 and SIZES[target]:
                nats -= F.log_softmax(row, dim=0)[target].item()
                size += SIZES[target]
    return nats / (math.log(2) * size)


@pytest.fixture(scope="module")
def plain_model() -> GPT:
    return trained_looking(GPT(small_config()))


@pytest.mark.parametrize("most", [None, 1, 48, 60, 144])
@torch.no_grad()
def test_equals_the_sum_over_targets(plain_model: GPT, most: int | None) -> None:
    given = batches(3)
    if most == 1:  # the first three targets are ignored
        with pytest.raises(UserError, match="the held-out text is empty"):
            bits_per_byte(plain_model, given, SIZES, most)
        return
    found = bits_per_byte(plain_model, given, SIZES, most)
    assert found == pytest.approx(by_hand(plain_model, given, most), rel=1e-6)


def test_a_uniform_model_needs_log2_of_the_vocabulary() -> None:
    model = GPT(small_config())
    with torch.no_grad():
        model.lm_head.weight.zero_()
    ones = np.ones(300, dtype=np.int64)
    assert bits_per_byte(model, batches(2), ones) == pytest.approx(math.log2(300), rel=1e-6)


def test_reads_no_more_batches_than_it_counts(plain_model: GPT) -> None:
    def endless() -> Iterator[tuple]:
        for number, batch in enumerate(batches(9)):
            assert number < 2
            yield batch

    plain_model.train()
    bits_per_byte(plain_model, endless(), SIZES, 96)
    assert plain_model.training


def test_too_little_text_is_said(plain_model: GPT) -> None:
    with pytest.raises(UserError, match="held-out text has 96 tokens and 1,000 were asked for"):
        bits_per_byte(plain_model, batches(2), SIZES, 1000)


def in_rank(rank: int, world: int, most: int | None) -> float:
    given = batches(4)
    model = trained_looking(GPT(small_config()))
    return bits_per_byte(model, given[rank::world], SIZES, most)


def test_ranks_agree_on_the_exact_sum(plain_model: GPT) -> None:
    # rank 1 has fewer batches; the mean of the ranks' means would be another number
    found = run_ranks(2, in_rank, None)
    assert (
        found[0]
        == found[1]
        == pytest.approx(bits_per_byte(plain_model, batches(4), SIZES), rel=1e-9)
    )


def stopped(rank: int, world: int) -> str:
    """Rank 1 hears a signal before its second batch; the others have more to do."""
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return rank == 1 and len(asked) == 2

    model = trained_looking(GPT(small_config()))
    try:
        bits_per_byte(model, batches(3), SIZES, stop=stop)
    except StopRequested:
        return "stopped"
    return "measured"


def test_all_ranks_stop_when_one_is_told_to() -> None:
    assert run_ranks(2, stopped) == ["stopped"] * 2


def test_a_compiled_model_is_given_one_shape(plain_model: GPT) -> None:
    """A shorter last batch would be compiled for; the model that was compiled reads it."""
    given = [*batches(2), tuple(x[:1] for x in batches(1, seed=1)[0][:2])]
    seen: list[int] = []

    class Compiled(torch.nn.Module):
        device = plain_model.device

        def __init__(self) -> None:
            super().__init__()
            self._orig_mod = plain_model

        def forward(self, inputs: Tensor, targets: Tensor, **more: str) -> Tensor:
            seen.append(len(inputs))
            return self._orig_mod(inputs, targets, **more)

    found = bits_per_byte(Compiled(), given, SIZES)
    assert seen == [3, 3]
    assert found == pytest.approx(bits_per_byte(plain_model, given, SIZES), rel=1e-6)
