"""What fits onto a device: rows of a pass, depths, and what it would take."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from nanogpt2.depth import dial
from nanogpt2.errors import UserError
from nanogpt2.fitting import Room
from nanogpt2.machines import (
    machine_of,
    processor,
)
from nanogpt2.planning import (
    as_found,
    plan,
)
from nanogpt2.recipes import get_recipe
from nanogpt2.run import Loop, Run
from nanogpt2.training.ranks import Ranks

NODE = machine_of("H100", 8)


def test_a_small_device_gets_fewer_rows_and_more_passes():
    full = plan("run1", None, machine_of("H100"))
    rows = []
    for memory in (80, 45, 30, 27):
        made = plan("run1", None, replace(machine_of("H100"), memory_bytes=memory * 10**9))
        assert made.device_batch_size * made.accumulation == 256
        assert made.memory.peak <= 0.92 * memory * 10**9
        rows.append(made.device_batch_size)
    assert rows[0] == full.device_batch_size == 16
    assert rows == sorted(rows, reverse=True) and rows[-1] < 8


def test_what_fits_is_found_soon_however_deep_the_model_asked_for_is():
    made = plan("run1", 65_535, machine_of("RTX 3060"))
    depth = int(re.search(r"--depth (\d+) fits", made.reasons[0])[1])
    assert plan("run1", depth, machine_of("RTX 3060")).fits
    assert not plan("run1", depth + 1, machine_of("RTX 3060")).fits


def test_what_does_not_fit_says_why():
    small = replace(machine_of("L4"), memory_bytes=8 * 10**9)
    made = plan("run1", None, small)
    assert not made.fits
    assert "one row at a time needs" in made.reasons[0] and "smaller depth" in made.reasons[0]
    uneven = plan("run1", None, machine_of("H100", 3))
    assert not uneven.fits and "multiple of 6,144" in uneven.reasons[0]


def test_recomputation_is_proposed_where_it_makes_a_run_fit():
    long = get_recipe("run1", depth=16, sequence_len=16384)
    card = machine_of("RTX 3060")
    without, again = (plan(long, None, card, loop=Loop(recompute=on)) for on in ("off", "on"))
    needed = f"with --set recompute=on it needs {again.memory.peak / 1e9:.1f} GB"
    assert not without.fits and needed in without.reasons[0]
    assert again.fits and again.seconds == pytest.approx(without.seconds * 4 / 3)
    assert any("a third more arithmetic" in note for note in again.notes)
    roomy = [
        plan("run1", None, machine_of("H100"), loop=Loop(recompute=on), most_rows=16).memory
        for on in ("off", "on")
    ]
    assert roomy[1].activations < roomy[0].activations / 3


CARDS = ["RTX 3060", "RTX 3070", "RTX 4060 Ti", "RTX 3090", "RTX 4090", "T4", "V100", "A10", "L4"]


@pytest.mark.parametrize("kind", [*CARDS, "RX 7900 XTX"])
def test_a_card_that_people_have_is_told_what_fits_and_what_takes_a_day(kind):
    card = machine_of(kind)
    made = plan("run1", None, card)
    assert not made.fits
    depth = int(re.search(r"--depth (\d+) fits", made.reasons[0])[1])
    assert plan("run1", depth, card).fits and not plan("run1", depth + 1, card).fits
    quick = next(note for note in made.notes if "would take about" in note)
    shallow = plan("run1", int(re.search(r"depth (\d+)", quick)[1]), card)
    assert shallow.fits and shallow.seconds <= 24 * 3600


@pytest.mark.parametrize("free", [10, 20, 40, 80, 160])
def test_the_planned_loss_is_the_one_that_the_kernel_chooses(free, monkeypatch):
    from nanogpt2.kernels import loss

    machine = replace(machine_of("H100"), memory_bytes=free * 10**9)
    room, at = Room(get_recipe("run1"), machine, "bf16"), dial(4, "run1")
    left = machine.memory_bytes - 4 * at.parameters["total"]
    monkeypatch.setattr(loss, "_first_free", lambda gpu: left)
    head = torch.empty(at.model.vocab_size, at.n_embd, device="meta")
    for rows in (1, 4, 16, 32, 64):
        hidden = torch.empty(rows * 2048, at.n_embd, dtype=torch.bfloat16, device="meta")
        cuda = SimpleNamespace(
            device=torch.device("cuda", 0), dtype=hidden.dtype, shape=hidden.shape
        )
        chosen = loss._choose(cuda, head, "mean", learns=True)
        assert room.holds_logits(at, rows) == (chosen == "plain"), rows


def test_a_larger_card_takes_more_rows_than_the_recipe_names():
    large = machine_of("H200", 8)
    assert plan("run6", None, large).device_batch_size == 32
    assert plan("run6", None, large, most_rows=16).device_batch_size == 16
    assert plan("run6", None, NODE).device_batch_size == 16, "the record's"
    assert plan("laptop", None, processor()).device_batch_size == 16


def gpu_ranks(world_size, monkeypatch, free):
    """A rank of ``world_size`` on CUDA, where the fullest GPU has so many bytes free."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (80 * 10**9, 80 * 10**9))
    ranks = Ranks(0, 0, world_size, torch.device("cuda", 0))
    ranks.gather = lambda key, value, seconds: [value, free]
    ranks.share = lambda make: make()
    return ranks


def test_a_card_in_use_takes_fewer_rows_a_pass(monkeypatch):
    run, made = Run(get_recipe("run6"), "."), plan("run6", None, NODE)
    assert as_found(made, run, gpu_ranks(8, monkeypatch, 79 * 10**9)) == made
    less = as_found(made, run, gpu_ranks(8, monkeypatch, 30 * 10**9))
    assert less.device_batch_size < 16 and less.memory.peak <= 30 * 10**9
    assert less.device_batch_size * less.accumulation == 64 and less.fits
    assert "30.0 GB are free" in less.notes[-1]
    none = as_found(made, run, gpu_ranks(8, monkeypatch, 3 * 10**9))
    assert not none.fits and "one row at a time needs" in none.reasons[0]


def test_plan_and_run_agree_on_device_and_ranks(monkeypatch):
    run, made = Run(get_recipe("run6"), "."), plan("run6", None, NODE)
    for ranks in (gpu_ranks(7, monkeypatch, 80 * 10**9), Ranks(0, 0, 8, torch.device("cpu"))):
        with pytest.raises(UserError, match="the plan is for 8 x H100"):
            as_found(made, run, ranks)
