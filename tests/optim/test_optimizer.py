"""The whole optimizer on one process: the reference, groups, state, compilation."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from nanogpt2 import GPT, GPTConfig
from nanogpt2.optim import apply_schedules, build_optimizer
from nanogpt2.recipes import RUN1, RUN6
from tests.optim.test_sharded import build


def test_four_steps_of_the_reference(reference):
    data = np.load(reference / "run1_small.npz")
    config = GPTConfig(**{k[4:]: data[k].item() for k in data if k.startswith("cfg/")})
    model = GPT(config)
    start = {k[6:]: torch.tensor(data[k]) for k in data if k.startswith("param/")}
    model.load_state_dict(start)
    optimizer = build_optimizer(model, "run1", dtype=torch.bfloat16)
    x, y = torch.tensor(data["x"]), torch.tensor(data["y"])
    for step, expected in enumerate(data["opt_losses"]):
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
            if group["kind"] == "muon":
                group["momentum"] = 0.85 + 0.10 * step / 300
                group["weight_decay"] = 0.2 * (1 - step / 20)
        optimizer.zero_grad()
        loss = model(x, y)
        assert loss.item() == pytest.approx(float(expected), abs=3e-4)
        loss.backward()
        optimizer.step()
    for name, p in model.named_parameters():
        expected = torch.tensor(data[f"after4/{name}"])
        update = (expected - start[name]).norm()
        assert (p - expected).norm() < 0.12 * update, name  # Polar Express in bf16, both times


def test_groups_of_run1():
    config = GPTConfig(n_layer=2, n_head=2, n_kv_head=2, n_embd=192, vocab_size=64)
    optimizer = build_optimizer(GPT(config), "run1", lr_scale=2.0, weight_decay=0.7)
    by_name = {n: g for g in optimizer.param_groups for n in g["names"]}
    scale = 2.0 * (192 / 768) ** -0.5
    expected = {
        "lm_head.weight": 0.004 * scale,
        "transformer.wte.weight": 0.3 * scale,
        "value_embeds.1.weight": 0.3 * scale,
        "resid_lambdas": 0.005 * 2.0,
        "x0_lambdas": 0.5 * 2.0,
        "transformer.h.1.attn.ve_gate.weight": 0.02 * 2.0,
    }
    for name, lr in expected.items():
        assert by_name[name]["initial_lr"] == by_name[name]["lr"] == pytest.approx(lr)
    assert by_name["x0_lambdas"]["betas"] == (0.96, 0.95)
    muon = [g for g in optimizer.param_groups if g["kind"] == "muon"]
    assert all(len({p.shape for p in g["params"]}) == 1 for g in muon)
    assert all(g["weight_decay"] == 0.7 for g in muon)
    assert {n for g in muon for n in g["names"]} == {
        n for n, p in GPT(config).named_parameters() if ".h." in n
    }


def test_mixers_are_not_scaled():
    sizes = {"n_layer": 2, "n_head": 2, "n_kv_head": 2, "n_embd": 64, "vocab_size": 64}
    optimizer = build_optimizer(GPT(GPTConfig(**sizes, smear=True, backout=True)), RUN6, lr_scale=3)
    by_name = {n: g for g in optimizer.param_groups for n in g["names"]}
    for name in ("smear_gate.weight", "smear_lambda", "backout_lambda"):
        assert by_name[name]["lr"] == 0.2


def test_matrices_can_go_to_adamw():
    recipe = replace(RUN1, matrices="adamw")
    config = GPTConfig(n_layer=1, n_head=1, n_kv_head=1, n_embd=64, vocab_size=64)
    optimizer = build_optimizer(GPT(config), recipe)
    assert {g["kind"] for g in optimizer.param_groups} == {"adamw"}


def steps(model, recipe, optimizer, numbers):
    for step in numbers:
        rows = torch.randint(0, 130, (2, 9), generator=torch.Generator().manual_seed(step))
        apply_schedules(optimizer, recipe, step, 20)
        model(rows[:, :-1], rows[:, 1:]).backward()
        optimizer.step()
        model.zero_grad()


@pytest.mark.parametrize("way", ["state_dict", "shards"])
def test_saved_state_continues_bit_for_bit(way):
    recipe, model = build("run6", bf16_tables=True)
    optimizer = build_optimizer(model, recipe)
    steps(model, recipe, optimizer, range(3))
    weights = {n: p.clone() for n, p in model.state_dict().items()}
    _, twin = build("run6", bf16_tables=True)
    twin.load_state_dict(weights)
    other = build_optimizer(twin, recipe)
    if way == "state_dict":
        other.load_state_dict(optimizer.state_dict())
    else:
        saved = {name: state for name, _, _, state in optimizer.shard_state()}
        other.load_shards(lambda name, key, start, stop: saved[name][key], step=3)
    steps(model, recipe, optimizer, range(3, 6))
    steps(twin, recipe, other, range(3, 6))
    assert all(map(torch.equal, model.parameters(), twin.parameters()))


def test_rates_that_change_every_step_compile_once(monkeypatch):
    # dynamo decides about recompiling; its "eager" backend spares the minutes of code generation
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    recipe, model = build("run1")
    optimizer = build_optimizer(model, recipe, compiled=True, dtype=torch.float32)
    counters.clear()
    steps(model, recipe, optimizer, range(2))
    after_two = counters["stats"]["unique_graphs"]
    steps(model, recipe, optimizer, range(2, 8))
    assert after_two > 0
    assert counters["stats"]["unique_graphs"] == after_two


def test_what_is_frozen_is_left_alone():
    """As torch's own optimizers do it: no step, and no decay either."""
    config = GPTConfig(sequence_len=16, vocab_size=64, n_layer=2, n_head=2, n_kv_head=2, n_embd=32)
    model = GPT(config)
    model.init_weights(0)
    model.transformer["h"].requires_grad_(False)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build_optimizer(model, RUN6, dtype=torch.float32)
    apply_schedules(optimizer, RUN6, 0, 10)
    tokens = torch.randint(64, (2, 17), generator=torch.Generator().manual_seed(0))
    model(tokens[:, :-1], tokens[:, 1:]).backward()
    optimizer.step()
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) != p.requires_grad, name
