"""Sharding changes where the work is done, not what comes out: gloo with several processes."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from nanogpt2 import GPT
from nanogpt2.depth import model_at
from nanogpt2.optim import apply_schedules, build_optimizer
from nanogpt2.optim.collectives import bounds, expected_traffic
from nanogpt2.optim.sharded import SMALL
from nanogpt2.recipes import RECIPES
from nanogpt2.training.setup import thin_gradients
from tests.distributed import run_ranks

ROWS = 24  # divisible by every world size below: all ranks see equal parts of one batch
WORLDS = (1, 2, 3, 4, 8)
NAMES = [name for name in RECIPES if name != "laptop"]


def build(name, bf16_tables=False):
    """A model whose shapes divide by nothing, with every parameter away from zero."""
    recipe = replace(RECIPES[name], head_dim=16, aspect=16)
    sizes = {"vocab_size": 130, "sequence_len": 8, "value_gate_channels": 12, "smear_channels": 12}
    model = GPT(replace(model_at(3, recipe), **sizes))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.empty_like(p).normal_(0, 0.1, generator=generator))
    if bf16_tables:
        model.transformer["wte"].to(torch.bfloat16)
        model.value_embeds.to(torch.bfloat16)
    return recipe, model


def train(rank, world, names, steps, bf16_tables=False, thin=False):
    """A few steps of each recipe; weights after every step, and what went over the wire."""
    out = {}
    for name in names:
        recipe, model = build(name, bf16_tables)
        if thin:
            thin_gradients(model, tokens=1)
        optimizer = build_optimizer(model, recipe, dtype=torch.float32)
        optimizer.measure_gradient = True
        generator = torch.Generator().manual_seed(2)
        after, norms = [], []
        for step in range(steps):
            rows = torch.randint(0, 130, (ROWS, 9), generator=generator)
            mine = rows.chunk(world)[rank]
            apply_schedules(optimizer, recipe, step, 10)
            for half in mine.chunk(2) if len(mine) > 3 else [mine]:  # accumulation
                loss = model(half[:, :-1], half[:, 1:])
                (loss * len(half) / len(mine)).backward()
            optimizer.step()
            model.zero_grad()
            square = optimizer.gradient_square()
            if world > 1:
                torch.distributed.all_reduce(square)
            norms.append(square.sqrt().item())
            after.append({n: p.detach().float().clone() for n, p in model.named_parameters()})
        traffic = dict(optimizer.comm.calls), dict(optimizer.comm.bytes)
        out[name] = {
            "weights": after,
            "norms": norms,
            "traffic": traffic,
            "expected": expected_traffic(optimizer),
            "state": optimizer.state_bytes(),
        }
    return out


@pytest.fixture(scope="module")
def runs():
    many = {world: run_ranks(world, train, NAMES, 2) for world in WORLDS[1:]}
    return {1: [train(0, 1, NAMES, 2)], **many}


@pytest.mark.parametrize("world", WORLDS[1:])
@pytest.mark.parametrize("name", NAMES)
def test_ranks_agree_to_the_bit_after_every_step(runs, world, name):
    first, *others = runs[world]
    for other in others:
        for mine, theirs in zip(first[name]["weights"], other[name]["weights"], strict=True):
            assert all(torch.equal(mine[n], theirs[n]) for n in mine)


@pytest.mark.parametrize("world", WORLDS[1:])
@pytest.mark.parametrize("name", NAMES)
def test_many_ranks_do_what_one_does(runs, world, name):
    one, many = runs[1][0][name], runs[world][0][name]
    _, start = build(name)
    before = dict(start.named_parameters())
    for n, single in one["weights"][0].items():
        update = (single - before[n]).norm()
        # AdamW's first step is the sign of the gradient: an entry that is rounding noise may flip
        assert (many["weights"][0][n] - single).norm() <= 0.02 * update + 1e-6, n
    assert many["norms"][0] == pytest.approx(one["norms"][0], rel=1e-4)


@pytest.mark.parametrize("world", [1, 2])
def test_gradients_of_the_rows_that_were_read_do_as_well_as_whole_ones(runs, world, monkeypatch):
    monkeypatch.setattr("nanogpt2.optim.fast.adamw.PIECE", 5 * 48)  # of the table's 130 rows
    thin = run_ranks(2, train, ["run6"], 2, False, True)[0] if world == 2 else None
    thin = (thin or train(0, 1, ["run6"], 2, thin=True))["run6"]
    whole = runs[world][0]["run6"]
    for n, p in whole["weights"][0].items():  # sums of a row's gradients round in another order
        torch.testing.assert_close(thin["weights"][0][n], p, rtol=1e-4, atol=1e-6)
    for n, p in whole["weights"][1].items():
        assert (thin["weights"][1][n] - p).norm() <= 1e-3 * p.norm(), n
    assert thin["norms"] == pytest.approx(whole["norms"], rel=1e-4)


def places(rank, world):
    """Where gradients were sent from, and where parameters were gathered to, in one step."""
    recipe, model = build("run6")
    optimizer = build_optimizer(model, recipe, dtype=torch.float32)
    comm, sent, gathered = optimizer.comm, [], []
    scatter, gather = comm.reduce_scatter, comm.all_gather
    comm.reduce_scatter = lambda whole: (sent.append(whole.data_ptr()), scatter(whole))[1]
    comm.all_gather = lambda whole, p: (gathered.append(whole.data_ptr()), gather(whole, p))[1]
    rows = torch.randint(0, 130, (4, 9))
    model(rows[:, :-1], rows[:, 1:]).backward()
    kept = [t.data_ptr() for p in model.parameters() for t in (p, p.grad)]
    optimizer.step()
    return sent, gathered, kept, any(hasattr(stack, "sent") for stack in optimizer.stacks)


def test_parameters_are_gathered_where_the_gradients_were():
    sent, gathered, kept, held = run_ranks(3, places)[0]
    assert len(gathered) == len(sent) > 5
    assert set(gathered) <= {*sent, *kept}, "no memory beside what sent the gradients"
    assert not held, "and that is given back"


@pytest.mark.parametrize("world", WORLDS[1:])
def test_collectives_and_bytes_follow_the_formula(runs, world):
    for name in NAMES:
        result = runs[world][0][name]
        calls, size = result["expected"]
        assert result["traffic"][0] == {k: 2 * v for k, v in calls.items() if v}
        assert result["traffic"][1] == {k: 2 * v for k, v in size.items() if v}


@pytest.mark.parametrize("world", WORLDS)
def test_each_rank_holds_its_share_of_the_state(runs, world):
    """Two fp32 moments per AdamW entry of its rows; momentum and one vector per owned matrix."""
    _, model = build("run1")
    shapes = Counter(tuple(p.shape) for n, p in model.named_parameters() if ".h." in n)
    rest = [p for n, p in model.named_parameters() if ".h." not in n]
    for rank in range(world):
        expected = 0
        for p in rest:
            start, stop = bounds(p.size(0), world, rank) if p.numel() >= SMALL else (0, p.size(0))
            expected += 2 * 4 * (stop - start) * (p.numel() // p.size(0))
        for (rows, cols), count in shapes.items():
            start, stop = bounds(count, world, rank)
            expected += 4 * (stop - start) * (rows * cols + max(rows, cols))
        assert runs[world][rank]["run1"]["state"] == expected


def test_bf16_tables_stay_equal_over_ranks():
    ranks = run_ranks(2, train, ["run6"], 2, True)
    first, second = (r["run6"]["weights"][-1] for r in ranks)
    assert all(torch.equal(first[n], second[n]) for n in first)


def test_bounds_cover_everything_once():
    for count in range(0, 70):
        for world in range(1, 65):
            cuts = [bounds(count, world, rank) for rank in range(world)]
            owned = [i for start, stop in cuts for i in range(start, stop)]
            assert owned == list(range(count))
            assert max(stop - start for start, stop in cuts) == -(-count // world)
