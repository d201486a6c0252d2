"""What a run will cost, before it is begun: the plan, its notes and its command."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanogpt2.costs import (
    RUN1_SECONDS,
)
from nanogpt2.depth import Batch, dial, flops_per_token
from nanogpt2.errors import run_command
from nanogpt2.machines import (
    Machine,
    machine_of,
    processor,
)
from nanogpt2.planning import (
    GUESS,
    TOKENS_OF_A_RANK,
    describe,
    main,
    measured,
    plan,
    processor_ranks,
    recipe_for,
    why_ask,
)
from nanogpt2.recipes import RECIPES, get_recipe
from nanogpt2.training import pace
from nanogpt2.training.setup import choose_precision

NODE = machine_of("H100", 8)


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


@pytest.mark.parametrize("devices", [3, 5, 6, 7])
def test_gpus_that_cannot_share_a_batch_are_told_how_many_can(devices):
    some = 2 if devices == 3 else 4
    recipe, why = recipe_for(machine_of("A100", devices))
    assert recipe == recipe_for(machine_of("A100", some))[0] and recipe.name == "run6"
    assert f"{some} of the GPUs can share it: CUDA_VISIBLE_DEVICES=0,1" in why
    refused = plan(recipe, None, machine_of("A100", devices))
    assert not refused.fits and f"{devices} ranks" in refused.reasons[0]


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


def test_a_processors_time_is_measured(monkeypatch):
    """By a clock of our own, on which both a pass and an update take a second."""
    recipe, clock = get_recipe("laptop"), itertools.count().__next__
    state = torch.get_rng_state()
    small = pace.step_seconds(recipe, "fp32", Batch(4, 3, 3072), 1, clock)
    assert small == pace.AROUND * (3 + 1), "three passes and an update"
    large = pace.step_seconds(recipe, "fp32", Batch(16, 1, 4096), 1, clock)
    assert large == pace.AROUND * (2 + 1), "of 8 rows"
    monkeypatch.setattr(pace, "cores", lambda: 2)
    shared = [pace.step_seconds(recipe, "fp32", Batch(4, 1, 1024), n, clock) for n in (2, 8)]
    assert shared[1] == 4 * shared[0], "eight ranks take turns on two cores"
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
