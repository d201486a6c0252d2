"""The planner's bytes against real tensors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nanogpt2.config import GPTConfig
from nanogpt2.depth import dial
from nanogpt2.machines import (
    machine_of,
    processor,
)
from nanogpt2.memory import memory_per_rank, optimizer_bytes, parameter_bytes
from nanogpt2.model.gpt import GPT
from nanogpt2.optim.groups import parameter_groups
from nanogpt2.optim.sharded import stacks_of
from nanogpt2.planning import (
    plan,
)
from nanogpt2.recipes import RECIPES, get_recipe
from nanogpt2.run import Loop

NODE = machine_of("H100", 8)


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
