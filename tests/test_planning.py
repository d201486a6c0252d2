"""The planner's arithmetic against the recorded facts, and its bytes against real tensors."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanogpt2.config import GPTConfig
from nanogpt2.costs import (
    RUN1_SECONDS,
    cost_fall,
    energy_kwh,
    gpt2_dollars,
    gpt2_kwh,
    model_flops_utilization,
    record_mfu,
    training_seconds,
)
from nanogpt2.depth import Batch, dial, flops_per_token
from nanogpt2.errors import UserError, run_command
from nanogpt2.fitting import Room
from nanogpt2.machines import (
    ACCELERATORS,
    Machine,
    find_accelerator,
    machine_of,
    processor,
    processor_has_bf16,
    this_machine,
)
from nanogpt2.memory import memory_per_rank, optimizer_bytes, parameter_bytes
from nanogpt2.model.gpt import GPT
from nanogpt2.optim.groups import parameter_groups
from nanogpt2.optim.sharded import stacks_of
from nanogpt2.planning import (
    GUESS,
    TOKENS_OF_A_RANK,
    as_found,
    describe,
    main,
    measured,
    plan,
    processor_ranks,
    recipe_for,
    why_ask,
)
from nanogpt2.recipes import RECIPES, get_recipe
from nanogpt2.run import Loop, Run
from nanogpt2.training import pace
from nanogpt2.training.ranks import Ranks
from nanogpt2.training.setup import choose_precision

NODE = machine_of("H100", 8)


def test_gpt2_in_2019():
    assert gpt2_dollars() == 43_008
    assert 5_200 < gpt2_kwh() < 6_800  # 128 chips of 245 to 310 W


def test_run1_to_the_digit():
    made = plan("run1", None, NODE)
    assert made.dial.iterations == 16_704
    assert made.dial.total_flops == 43_307_841_312_289_456_128 == 4.330784131228946e19
    assert made.seconds == pytest.approx(10_949.46713, rel=1e-12)
    assert made.seconds / 3600 == pytest.approx(3.04, abs=0.005)
    assert made.dollars == pytest.approx(73, abs=0.005)
    assert made.mfu == pytest.approx(0.49990, abs=5e-6)
    assert made.fits and made.reasons == ()
    assert (made.device_batch_size, made.accumulation) == (16, 2)


def test_the_fall_of_cost():
    times, a_year = cost_fall(plan("run1", None, NODE).dollars)
    assert times == pytest.approx(590, abs=3)
    assert a_year == pytest.approx(0.40, abs=0.005)
    assert a_year**7 == pytest.approx(1 / times, rel=1e-12)


@pytest.mark.parametrize("name", ["run2", "run3", "run4", "run5", "run6"])
def test_records_take_the_time_they_took(name):
    made, hours = plan(name, None, NODE), RECIPES[name].record.hours
    assert made.seconds / 3600 == pytest.approx(hours, rel=1e-12)
    assert made.fits
    assert made.device_batch_size * made.accumulation * 8 * 2048 == made.dial.batch_tokens
    assert 0.4 < record_mfu(name) < 0.8  # of the bf16 peak; fp8 has twice that


def test_time_and_utilization_are_one_equation():
    share = model_flops_utilization(4.33e19, RUN1_SECONDS, 8, 989e12)
    assert training_seconds(4.33e19, share, 8, 989e12) == pytest.approx(RUN1_SECONDS)
    one, eight = plan("run1", None, machine_of("H100")), plan("run1", None, NODE)
    assert one.seconds == pytest.approx(8 * eight.seconds)
    assert one.dollars == pytest.approx(eight.dollars)  # paid by the device
    assert one.kwh == pytest.approx(eight.kwh)
    assert one.accumulation == 8 * eight.accumulation
    assert plan("run1", None, NODE, mfu=0.25).seconds == pytest.approx(
        eight.seconds * eight.mfu / 0.25
    )


def test_energy_of_a_node_is_its_rated_power():
    assert energy_kwh(NODE, 3600) == pytest.approx(10.2)  # a DGX H100
    assert 150 < gpt2_kwh() / plan("run1", None, NODE).kwh < 220


class Alone:
    """One of ``world_size`` ranks, with nobody to talk to."""

    def __init__(self, world_size, rank):
        self.world_size, self.rank = world_size, rank


def state_bytes(model, recipe, world_size, rank):
    """What the real optimizer keeps on one rank."""
    total = 0
    comm = Alone(world_size, rank)
    for group in parameter_groups(list(model.named_parameters()), model.config, recipe, 1.0, 0.1):
        total += sum(t.nbytes for stack in stacks_of(group, comm) for t in stack.state.values())
    return total


SIZES = {"sequence_len": 32, "vocab_size": 130, "n_layer": 5, "n_head": 4, "n_embd": 48}
MODELS = {
    **{name: replace(r.model, **SIZES, n_kv_head=4) for name, r in RECIPES.items()},
    "gqa": replace(RECIPES["run6"].model, **SIZES, n_kv_head=2),
    "gpt2": GPTConfig.gpt2(**SIZES),
    "swiglu": replace(GPTConfig.gpt2(**SIZES), activation="swiglu", tied_head=False),
}


@pytest.mark.parametrize("name", MODELS)
def test_bytes_are_those_of_the_real_model_and_optimizer(name):
    config, recipe = MODELS[name], RECIPES.get(name, RECIPES["run1"])
    model = GPT(config)
    parameters = sum(p.nbytes for p in model.parameters())
    assert parameter_bytes(config, bf16_tables=False) == parameters
    for table in [*([] if config.tied_head else [model.transformer["wte"]])] + list(
        model.value_embeds.values()
    ):
        table.to(torch.bfloat16)
    assert parameter_bytes(config, True) == sum(p.nbytes for p in model.parameters())
    for ranks in (1, 3, 8):
        shares = [state_bytes(model, recipe, ranks, rank) for rank in range(ranks)]
        assert optimizer_bytes(config, recipe, ranks) == max(shares)


def test_adamw_on_matrices_keeps_two_moments():
    recipe = replace(RECIPES["run1"], matrices="adamw")
    config = replace(MODELS["run1"], value_embeddings=False)
    assert optimizer_bytes(config, recipe, 1) == 2 * parameter_bytes(config, False)
    assert optimizer_bytes(config, recipe, 8) < 2 * parameter_bytes(config, False) / 7


def test_memory_of_run1():
    model = dial(24, "run1").model
    memory = memory_per_rank(model, get_recipe("run1"), 8, 16, True, True)
    fp32, bf16 = 50_331_648 + 679_481_856 + 48, 50_331_648 + 603_979_776
    assert memory.parameters == memory.gradients == 4 * fp32 + 2 * bf16
    wide = memory_per_rank(model, get_recipe("run1"), 8, 32, True, True)
    assert 1.9 < wide.activations / memory.activations < 2
    assert wide.optimizer == memory.optimizer
    assert memory.peak < 80e9 < wide.peak + 0.1 * wide.peak


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


def test_what_does_not_fit_says_why():
    small = replace(machine_of("L4"), memory_bytes=8 * 10**9)
    made = plan("run1", None, small)
    assert not made.fits
    assert "one row at a time needs" in made.reasons[0] and "smaller depth" in made.reasons[0]
    uneven = plan("run1", None, machine_of("H100", 3))
    assert not uneven.fits and "multiple of 6,144" in uneven.reasons[0]


def test_notes_say_what_is_assumed():
    assert "no fp8 products" in plan("run2", None, machine_of("A100", 8)).notes[0]
    assert any("run in fp16" in note for note in plan("run1", 8, machine_of("T4")).notes)
    mac = Machine("mps", 1, 10**10, peak_flops=None, bf16=False)
    assert any("run in fp32" in note for note in plan("run1", 8, mac).notes)
    unknown = plan("run1", 8, Machine("Future GPU", 1, 10**11, peak_flops=None))
    assert unknown.seconds is unknown.dollars is unknown.kwh is None
    assert "not known" in unknown.notes[0]
    assert plan("run1", None, NODE).notes == ()


def test_a_t4_runs_in_fp16_which_is_eight_times_as_fast_as_fp32():
    t4 = machine_of("T4")
    half, whole = (plan(replace(get_recipe("run1"), precision=p), 8, t4) for p in ("bf16", "fp32"))
    assert whole.seconds / half.seconds == pytest.approx(65 / 8.1)
    assert half.memory.activations < whole.memory.activations
    assert half.memory.parameters == whole.memory.parameters, "masters, the tables among them"
    assert half.mfu == 0.2 and "20% of peak" in half.notes[-1]


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


def test_another_depth_is_not_held_against_the_record():
    lines = dict(describe(plan("run1", 12, machine_of("RTX 3060"))))
    assert "another score" in lines["recipe"] and "GPT-2" not in str(lines)
    assert "GPT-2" in dict(describe(plan("run1", None, NODE)))["energy"]


def test_a_node_gets_the_record_that_reaches_the_score_soonest():
    recipe, why = recipe_for(NODE)
    assert recipe == get_recipe("run6") and "soonest" in why
    soonest = min((r for r in RECIPES.values() if r.record), key=lambda r: r.record.hours)
    assert recipe == soonest
    assert plan(recipe, None, NODE).dollars == pytest.approx(24 * 1.65)


@pytest.mark.parametrize(
    ("kind", "devices"), [("H100", 1), ("H200", 1), ("RTX 4090", 1), ("T4", 1), ("A100", 8)]
)
def test_what_starts_unasked_ends_within_hours_and_says_why(kind, devices):
    machine, hours = machine_of(kind, devices), 2 if devices == 1 else 4
    recipe, why = recipe_for(machine)
    made = plan(recipe, None, machine)
    assert made.fits and made.seconds <= 3600 * hours and why_ask(made) is None
    deeper = plan(recipe, recipe.depth + 2, machine)
    assert deeper.seconds > 3600 * hours or not deeper.fits
    assert f"at depth {recipe.depth} it ends within {hours} h 0 min" in why or hours == 2
    assert f"its own depth, {RECIPES[recipe.name].depth}, " in why
    assert recipe_for(machine, seconds=900)[0].depth < recipe.depth


def test_what_takes_longer_starts_only_when_it_is_asked_for():
    one = machine_of("H100")
    recipe, why = recipe_for(one, at_any_price=True)
    assert recipe.depth == 24 and "soonest" in why
    assert "about 13 h 12 min and $39.60" in why_ask(plan(recipe, None, one))
    assert why_ask(plan(recipe, None, NODE)) is None
    t4, _ = recipe_for(machine_of("T4"), at_any_price=True)
    assert plan(t4, None, machine_of("T4")).fits
    assert not plan(t4, t4.depth + 2, machine_of("T4")).fits
    unknown = replace(one, kind="Future GPU", peak_flops=None)
    assert "nobody knows how long" in why_ask(plan(recipe, None, unknown))


def test_without_a_gpu_or_room_on_it_there_is_the_laptop():
    assert recipe_for(processor()) == (get_recipe("laptop"), "")
    assert recipe_for(replace(machine_of("T4"), memory_bytes=10**8))[0].name == "laptop"


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


def test_all_logits_are_counted_where_the_loss_holds_them():
    bf16 = get_recipe("run1")
    made, eager = (plan(bf16, None, NODE, loop=Loop(compile=on)) for on in ("auto", "off"))
    logits = 16 * 2048 * 32768
    chunked = memory_per_rank(made.dial.model, bf16, 8, 16, True, True).activations
    assert made.memory.activations - chunked == pytest.approx(5 * logits, rel=0.1)
    assert eager.memory.activations - made.memory.activations == 10 * logits
    assert plan("laptop", None, processor()).memory.activations < logits


def test_a_processors_memory_is_that_of_a_whole_process():
    """Two ranks share what the optimizer keeps; what a save copies lies in the same memory."""
    recipe, machine = get_recipe("laptop"), processor()
    one, two = (plan(recipe, None, machine.with_devices(n)).memory for n in (1, 2))
    assert one.copies == one.parameters + one.optimizer and two.optimizer < one.optimizer
    assert one.process == two.process > 10 * one.parameters
    held = one.parameters + one.gradients + one.optimizer + one.copies + one.heap + one.process
    assert one.peak == held + one.activations
    assert plan("run1", None, NODE).memory.process == plan("run1", None, NODE).memory.copies == 0
    long = plan(get_recipe("laptop", vocab_size=32_768), None, machine).memory
    assert long.gradients < long.parameters / 2, "of tables only the rows that a step read"


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


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("rtx4090", "RTX 4090"),
        ("Tesla T4", "T4"),
        ("Tesla V100-SXM2-32GB", "V100"),
        ("Tesla V100-PCIE-16GB", "V100 PCIe"),
        ("NVIDIA GeForce RTX 4060 Ti", "RTX 4060 Ti"),
        ("NVIDIA GeForce RTX 3070 Ti", None),
        ("NVIDIA GeForce RTX 4080 SUPER", None),
        ("NVIDIA GeForce RTX 3060 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4060", None),
        ("AMD Instinct MI300X", "MI300X"),
        ("AMD Radeon RX 7900 XTX", "RX 7900 XTX"),
        ("Quadro T400", None),
        ("NVIDIA L40", None),
    ],
)
def test_names_of_devices(name, known):
    card = find_accelerator(name)
    assert (card.name if card else None) == known


def test_every_known_accelerator_is_found_by_its_own_name():
    assert all(find_accelerator(card.name) is card for card in ACCELERATORS)


def test_this_machine():
    machine = this_machine("cpu")
    assert machine.is_processor and machine.memory_bytes > 10**8
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no device .cuda. here"):
            this_machine("cuda")


def test_ranks_on_a_processor_share_it():
    one = Machine("cpu", 1, 8 * 10**9, 4e11, watts=24.0)
    four = one.with_devices(4)
    assert (four.devices, four.memory_bytes, four.peak_flops, four.watts) == (4, 2 * 10**9, 1e11, 6)
    assert plan("laptop", None, four).seconds == pytest.approx(plan("laptop", None, one).seconds)
    assert machine_of("H100").with_devices(8) == NODE


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("wanted", ["fp8", "bf16", "fp32"])
def test_the_plan_knows_the_precision_of_the_run(wanted, forced):
    recipe = get_recipe("laptop", precision=wanted)
    run, _ = choose_precision(wanted, torch.device("cpu"), forced)
    assert plan(recipe, None, processor(), forced=forced).precision == run


@pytest.mark.parametrize(
    ("name", "kind", "forced", "precision"),
    [
        ("run2", "H100", False, "fp8"),
        ("run2", "A100", False, "bf16"),
        ("run1", "A100", False, "bf16"),
        ("run1", "cpu", False, "fp32"),
        ("run1", "cpu", True, "bf16"),
        ("run2", "cpu", True, "fp32"),
    ],
)
def test_precision_is_what_the_machine_is_good_at_or_what_was_asked_for(
    name, kind, forced, precision
):
    machine = Machine("cpu", 1, 10**11, 1e11, bf16=False) if kind == "cpu" else machine_of(kind)
    made = plan(name, None, machine, forced=forced)
    assert made.precision == precision
    assert any("products; they will run" in note for note in made.notes) == (
        precision != RECIPES[name].precision
    )


def test_the_processors_flags_are_what_torch_sees(tmp_path):
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    assert processor_has_bf16() == any(getattr(torch.cpu, name, bool)() for name in checks)
    for flags, has in (("avx2 avx512f", False), ("avx2 avx512_bf16", True), ("amx_tile", True)):
        (tmp_path / flags).write_text(f"processor : 0\nflags : fpu {flags} sse\n")
        assert processor_has_bf16(tmp_path / flags) is has


def test_a_processors_time_is_measured():
    """By a clock of our own, on which both a pass and an update take a second."""
    recipe, clock = get_recipe("laptop"), itertools.count().__next__
    state = torch.get_rng_state()
    small = pace.step_seconds(recipe, "fp32", Batch(4, 3, 3072), 1, clock)
    assert small == pace.AROUND * (3 + 1), "three passes and an update"
    large = pace.step_seconds(recipe, "fp32", Batch(16, 1, 4096), 1, clock)
    assert large == pace.AROUND * (2 + 1), "of 8 rows"
    deep = dial(recipe=get_recipe("laptop", depth=12)).model
    less = pace.shallow(deep)
    assert 2 <= less.n_layer < 12 and less.n_embd == deep.n_embd
    scaled = pace.step_seconds(get_recipe("laptop", depth=12), "fp32", Batch(1, 1, 256), 2, clock)
    flops = flops_per_token(deep) / flops_per_token(less)
    assert scaled == pytest.approx(pace.AROUND * 2 * flops)
    assert torch.equal(state, torch.get_rng_state()), "the run that follows draws as it would"


def test_the_plan_says_that_it_measured(monkeypatch):
    monkeypatch.setattr("nanogpt2.planning.step_seconds", lambda *_: 2.0)
    recipe, machine = get_recipe("laptop"), processor()
    guessed = plan(recipe, None, machine)
    made = measured(guessed, recipe)
    assert made.seconds == 2 * made.dial.iterations and made.kwh
    assert GUESS in guessed.notes and GUESS not in made.notes
    time = dict(describe(made))["time"]
    assert "29 min 20 s of training, measured just now: 2,048 tokens a second" in time
    assert measured(plan("run1", None, NODE), get_recipe("run1")) == plan("run1", None, NODE)


def run(capsys, *argv):
    with pytest.raises(SystemExit) as stopped:
        run_command(lambda: main(argv))
    return stopped.value.code, *capsys.readouterr()


def test_command(capsys):
    status, out, _ = run(capsys, "--recipe=run1", "--machine=H100", "--devices=8")
    assert status == 0
    for fact in ("16,704", "4.330784131228946e19", "about 3 h 2 min", "$73.00", "43,008"):
        assert fact in out
    status, out, _ = run(capsys, "--recipe=run1", "--machine=T4", "--json")
    made = json.loads(out)
    assert status == 1 and made["fits"] is False and made["reasons"]
    status, out, _ = run(
        capsys, "--recipe=run1", "--machine=H100", "--devices=8", "--dollars-per-hour=16"
    )
    assert f"${16 * RUN1_SECONDS / 3600:.2f}" in out
    _, out, _ = run(capsys, "--recipe=run1", "--machine=H100", "--set", "steps=100")
    assert "steps       100\n" in out
    _, out, _ = run(capsys, "--recipe=run1", "--machine=H100", "--set", "recompute=on")
    assert "a third more arithmetic" in out
    status, out, _ = run(capsys, "--machine=mps", "--memory=16")
    assert status == 0 and "1 x mps, 16 GB each" in out and "run in fp32" in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--recipe=nope"], "unknown recipe 'nope'"),
        (["--recipe=run1", "--depth=0"], "depth is 0"),
        (["--recipe=run1", "--set=ratoi=3"], "did you mean ratio?"),
        (["--machine=abacus"], "unknown machine 'abacus'"),
        (["--machine=H100", "--devices=0"], "devices is 0"),
        (["--machine=H100", "--mfu=1.5"], "mfu is 1.5"),
        (["--machine=H100", "--memory=-3"], "must be positive"),
        (["--machine=H100", "--dollars-per-hour=-1"], "give 0 or more"),
        (
            ["--machine=H100", "--device-batch-size=0"],
            "device_batch_size is 0; it must be at least 1",
        ),
    ],
)
def test_bad_input(capsys, argv, message):
    status, _, err = run(capsys, *argv)
    assert status == 2 and message in err and err.count("\n") == 1


def test_planning_a_named_machine_needs_no_torch():
    code = (
        "import sys; from nanogpt2.planning import main; main({}); sys.exit('torch' in sys.modules)"
    )
    for name in (["--machine=H100"], ["--machine=cpu", "--recipe=run1"]):  # too large to be timed
        made = subprocess.run([sys.executable, "-c", code.format(name)], capture_output=True)
        assert made.returncode == 0, made.stderr


@given(depth=st.integers(1, 6), rows=st.integers(1, 64), cores=st.integers(1, 64))
def test_ranks_on_a_processor_deal_the_batch_out_and_have_enough_to_do(
    depth: int, rows: int, cores: int
) -> None:
    at = dial(depth, replace(get_recipe("laptop"), batch_tokens=256 * rows))
    ranks = processor_ranks(at, cores)
    assert 1 <= ranks <= cores and rows % ranks == 0
    assert ranks == 1 or at.batch_tokens // ranks >= TOKENS_OF_A_RANK
    busy = ranks * (cores // ranks)
    assert busy >= processor_ranks(at, 1) * cores or ranks > 1 or busy == cores


def test_the_laptop_recipe_takes_a_rank_a_core() -> None:
    at = dial(recipe="laptop")
    assert [processor_ranks(at, cores) for cores in (1, 2, 3, 4, 8, 64)] == [1, 2, 1, 4, 4, 4]


def test_the_note_names_the_part_of_the_peak_that_was_reckoned_with() -> None:
    assert "assumes 50% of peak" in " ".join(plan("run1", None, machine_of("A100"), mfu=0.5).notes)
