"""What the chapter on ZeRO-2 draws and computes; its ranks are real processes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from nanogpt2.depth import dial, model_at
from nanogpt2.errors import UserError
from nanogpt2.model.gpt import GPT
from nanogpt2.optim import build_optimizer
from nanogpt2.optim import sharded as room
from nanogpt2.optim.collectives import expected_traffic
from nanogpt2.recipes import get_recipe
from nanogpt2.studies import zero2
from nanogpt2.studies.zero2.pictures import EXAMPLE, after, ring_parts
from nanogpt2.studies.zero2.ranks import Found
from nanogpt2.studies.zero2.tables import wire_bytes


@pytest.mark.parametrize("world", [2, 3, 4, 7])
def test_the_ring_sums_everything_everywhere_in_2_w_minus_2_rounds(world: int) -> None:
    everyone = set(range(world))
    middle = ring_parts(world - 1, world)
    assert all(sum(part == everyone for part in rank) == 1 for rank in middle)
    assert {rank.index(everyone) for rank in middle} == everyone
    end = ring_parts(2 * world - 2, world)
    assert all(part == everyone for rank in end for part in rank)


def test_bytes_by_configuration_are_those_of_the_optimizer() -> None:
    recipe = get_recipe("run1")
    config = replace(model_at(3, recipe), vocab_size=300, sequence_len=16)
    model = GPT(config)
    model.init_weights(0)
    optimizer = build_optimizer(model, recipe)

    class Four:
        world_size, rank = 4, 0

    optimizer.comm = Four()  # type: ignore[assignment]
    optimizer.stacks = [
        stack for group in optimizer.param_groups for stack in room.stacks_of(group, optimizer.comm)
    ]
    sizes = expected_traffic(optimizer)[1]
    # the gates' matrices are few and small: they are counted like all others
    assert wire_bytes(config, 4, bf16_tables=False) == sum(sizes.values())


def test_stages_shrink_and_keep_their_sum() -> None:
    found = zero2.stages_memory(24, 8)
    totals = [sum(parts) for parts in found.values()]
    assert totals == sorted(totals, reverse=True)
    assert found["ZeRO-3"][0] == pytest.approx(found["data parallel"][0] / 8)
    alone = zero2.stages_memory(24, 1)
    assert len({round(sum(parts), 9) for parts in alone.values()}) == 1
    assert "on 8 ranks" in zero2.memory_frame(24, 8, "bf16")[1]
    assert "complete means 4" in zero2.ring_frame(6)[1]


def test_a_slower_link_takes_longer() -> None:
    rows = zero2.bandwidth_rows(1.0)
    sent = wire_bytes(dial(24, "run1").model, 8, True) * 7 / 8 / 1e9
    assert float(rows[0][3]) == pytest.approx(sent, abs=0.006)
    assert float(rows[0][4]) < float(rows[1][4]) < float(rows[2][4])


def test_ranks_tour_the_collectives() -> None:
    found = zero2.run_ranks("tour", 2)
    assert found.code == 0, found.said
    rows = {row[0]: row[1:] for row in zero2.tour_rows(found)}
    assert rows["at first"] == ["10 11", "20 21"]
    assert rows["all-reduce"] == rows["all-gather of that"] == ["30 32", "30 32"]
    assert rows["reduce-scatter"] == ["30", "32"] and rows["broadcast"] == ["10 11", "10 11"]


def test_ranks_take_a_step() -> None:
    found = zero2.run_ranks("step", 2, "--depth", "1", "--vocab-size", "256")
    assert found.code == 0, found.said
    first, second = found.ranks
    assert first["hash"] == second["hash"]
    assert first["bytes"] == {k: v for k, v in first["expected bytes"].items() if v}
    assert all(row[1] == row[2] and row[3] == row[4] for row in zero2.traffic_rows(first))
    assert first["alone"]["apart"] < 1e-5
    assert first["state"] + second["state"] == pytest.approx(first["alone"]["state"], rel=0.01)
    assert "A lane for each of 2 ranks" in str(zero2.timeline(found.ranks).text)


def test_a_killed_rank_is_named() -> None:
    found = zero2.run_ranks("lost", 2)
    assert found.code == 1 and not found.ranks
    assert zero2.root_cause(found) == "rank 1, exit code -9 (SIGKILL)"
    assert zero2.root_cause(Found([], 0.0, 1, "nothing")) == "the launcher names no rank"


def test_ranks_that_hang_are_ended() -> None:
    with pytest.raises(UserError, match="'tour' on 2 ranks did not end"):
        zero2.run_ranks("tour", 2, timeout=0.1)


def test_summed_gradients_are_a_factor_and_undone() -> None:
    p, before = torch.nn.Parameter(torch.ones(3)), room.gradient_of
    p.grad = torch.full((3,), 0.5)
    with zero2.summed_gradients(4):
        assert room.gradient_of(p).tolist() == [2.0] * 3
    assert room.gradient_of is before and math.isclose(float(room.gradient_of(p)[0]), 0.5)


def test_the_opening_is_a_step_of_plain_descent() -> None:
    mean = torch.tensor(EXAMPLE).float().mean(0)
    told = zero2.shared_step().text
    assert f"to {', '.join(f'{x:g}' for x in (10 - mean).tolist())}" in told


def test_reduce_scatter_then_all_gather_is_all_reduce() -> None:
    held = [[rank * 7 + i * i for i in range(4)] for rank in range(4)]
    parts = after("reduce-scatter", held)
    own = [[part if i == rank else 0 for i, part in enumerate(parts[rank])] for rank in range(4)]
    assert all(part == "" for rank in range(4) for i, part in enumerate(parts[rank]) if i != rank)
    gathered = after("all-gather", own)  # type: ignore[arg-type]
    assert gathered == after("all-reduce", held)
    assert after("broadcast", held) == [held[0]] * 4


def test_phases_overlap_on_the_page() -> None:
    assert "three reductions follow each other" in zero2.phases_picture().text
