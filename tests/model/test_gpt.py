"""The whole model: against the reference, against torch's own modules, and switch by switch."""

from dataclasses import replace
from itertools import accumulate

import numpy as np
import pytest
import torch
from torch import nn

from nanogpt2 import GPT, GPTConfig
from nanogpt2.depth import flops_per_token, model_at, parameter_counts
from nanogpt2.errors import UserError
from nanogpt2.kernels.backends import probe
from nanogpt2.memory import activation_bytes, eager_bytes, eager_layer_bytes
from nanogpt2.recipes import RECIPES

SMALL = {"sequence_len": 12, "vocab_size": 100, "n_layer": 2, "n_head": 2, "n_embd": 32}


def small(**switches):
    base = GPTConfig(**SMALL, n_kv_head=2, value_gate_channels=8, smear_channels=8)
    return replace(base, **switches)


def noisy(model, seed=0):
    """Fill every parameter, so that no zero start hides a path."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, 0.2, generator=generator)
    return model


@pytest.fixture(scope="module")
def run1_small(reference):
    data = np.load(reference / "run1_small.npz")
    values = {k[4:]: data[k].item() for k in data if k.startswith("cfg/")}
    model = GPT(GPTConfig(**values))
    model.load_state_dict({k[6:]: torch.tensor(data[k]) for k in data if k.startswith("param/")})
    return data, model


def test_the_reference_logits_loss_and_gradients(run1_small):
    data, model = run1_small
    x, y = torch.tensor(data["x"]), torch.tensor(data["y"])
    torch.testing.assert_close(model(x), torch.tensor(data["logits"]), rtol=1e-5, atol=1e-5)
    loss = model(x, y)
    torch.testing.assert_close(loss.item(), float(data["loss"]), rtol=1e-6, atol=1e-6)
    loss.backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, torch.tensor(data[f"grad/{name}"]), rtol=1e-4, atol=1e-6)
    assert model.window_sizes == [tuple(w) for w in data["windows"]]
    assert model.flops_per_token() == int(data["flops_per_token"])


@pytest.mark.parametrize("config", [small(), small(n_kv_head=1), GPTConfig.gpt2(**SMALL)])
def test_recomputing_changes_no_bit_of_loss_and_gradients(config):
    model = noisy(GPT(config)).train()
    tokens = torch.randint(0, 100, (3, 13), generator=torch.Generator().manual_seed(0))
    found = []
    for model.recompute in (False, True):
        model.zero_grad()
        loss = model(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        found.append([loss.detach(), *(p.grad.clone() for p in model.parameters())])
    assert all(map(torch.equal, *found))


def kept_bytes(model, tokens):
    """What stands between forward and backward, parameters left out; each memory once."""
    own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    found = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model.hidden(tokens)
    assert hidden.requires_grad, "held until here, so that no memory was used twice"
    return sum(found.values())


@pytest.mark.parametrize("recompute", [False, True])
def test_the_plan_knows_what_a_layer_keeps(recompute):
    """Of two depths the difference, by tensors that are there and by the planner's formula."""
    tokens = torch.randint(0, 100, (4, 64), generator=torch.Generator().manual_seed(0))
    measured, planned = [], []
    for layers in (4, 12):
        config = small(n_layer=layers, sequence_len=64, n_embd=64, vocab_size=128)
        model = GPT(config).train()
        model.recompute = recompute
        measured.append(kept_bytes(model, tokens))
        planned.append(activation_bytes(config, 4, 4, recompute))
    layers = (measured[1] - measured[0]) / (planned[1] - planned[0])
    assert 0.75 < layers < 1.25  # a compiler keeps less than this


SWITCHES = {
    "run1": {},
    "gpt2": {
        "norm": "layer", "activation": "gelu", "qk_norm": False, "residual_scalars": False,
        "value_embeddings": False,
    },
    "swiglu": {"activation": "swiglu", "value_embeddings": False},
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
def test_what_a_layer_keeps_without_a_compiler_is_counted_one_by_one(switches, dtype):
    tokens = torch.randint(0, 100, (4, 64), generator=torch.Generator().manual_seed(0))
    measured = []
    for layers in (4, 8):
        model = GPT(small(n_layer=layers, sequence_len=64, n_embd=128, **switches)).train()
        model.compute_dtype = dtype
        measured.append(kept_bytes(model, tokens))
    planned = 4 * tokens.numel() * eager_layer_bytes(model.config, dtype.itemsize)
    # beside what is counted: a number for each row of a norm, and for each head
    assert planned < measured[1] - measured[0] < 1.04 * planned


def peak_bytes(work):
    """The most that ``work`` had allocated at one time, by torch's own account."""
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True) as told:
        work()
    events = told.profiler.kineto_results.events()
    sizes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return max(accumulate(size for _, size in sizes))


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_peak_of_a_pass_is_what_is_planned_for_a_processor(dtype, recompute):
    config = small(sequence_len=128, n_layer=4, n_embd=128, vocab_size=512)
    model = GPT(config).train()
    model.compute_dtype, model.recompute = dtype, recompute
    tokens = torch.randint(512, (16, 129), generator=torch.Generator().manual_seed(0))
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    model(inputs, targets).backward()  # what is found out once is found out
    model.zero_grad()
    planned = eager_bytes(config, 16, dtype.itemsize, recompute)
    assert 0.8 < planned / peak_bytes(lambda: model(inputs, targets).backward()) < 1.25


def test_a_model_that_recomputes_learns_at_its_first_call():
    """When attention is tried on a small case, within a block whose tensors are counted."""
    probe.cache_clear()
    model = GPT(small()).train()
    model.recompute = True
    tokens = torch.zeros(1, 13, dtype=torch.long)
    model(tokens[:, :-1], tokens[:, 1:]).backward()


class TorchGPT2(nn.Module):
    """GPT-2 from torch's own modules."""

    def __init__(self, c):
        super().__init__()
        self.tokens = nn.Embedding(c.padded_vocab_size, c.n_embd)
        self.positions = nn.Embedding(c.sequence_len, c.n_embd)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                c.n_embd, c.n_head, 4 * c.n_embd, 0.0,
                activation=nn.GELU(approximate="tanh"), batch_first=True, norm_first=True,
            )
            for _ in range(c.n_layer)
        )  # fmt: skip
        self.norm = nn.LayerNorm(c.n_embd)
        self.vocab = c.vocab_size

    def copy(self, ours):
        own = ours.transformer
        pairs = [(self.tokens.weight, own.wte.weight), (self.positions.weight, own.wpe.weight)]
        for block, b in zip(self.blocks, own.h, strict=True):
            qkv = (b.attn.c_q, b.attn.c_k, b.attn.c_v)
            pairs.append((block.self_attn.in_proj_weight, torch.cat([m.weight for m in qkv])))
            pairs.append((block.self_attn.in_proj_bias, torch.cat([m.bias for m in qkv])))
            modules = (
                (block.self_attn.out_proj, b.attn.c_proj),
                (block.linear1, b.mlp.c_fc),
                (block.linear2, b.mlp.c_proj),
                (block.norm1, b.attn_norm),
                (block.norm2, b.mlp_norm),
            )
            for theirs, mine in modules:
                pairs += [(theirs.weight, mine.weight), (theirs.bias, mine.bias)]
        pairs += [
            (self.norm.weight, ours.final_norm.weight),
            (self.norm.bias, ours.final_norm.bias),
        ]
        with torch.no_grad():
            for theirs, mine in pairs:
                theirs.copy_(mine)
        return self

    def forward(self, idx):
        T = idx.size(1)
        x = self.tokens(idx) + self.positions.weight[:T]
        mask = nn.Transformer.generate_square_subsequent_mask(T)
        for block in self.blocks:
            x = block(x, src_mask=mask, is_causal=True)
        return (self.norm(x) @ self.tokens.weight.T)[..., : self.vocab]


def test_all_switches_off_is_gpt2():
    ours = noisy(GPT(GPTConfig.gpt2(**SMALL)))
    idx = torch.randint(0, 100, (2, 12), generator=torch.Generator().manual_seed(1))
    theirs = TorchGPT2(ours.config).copy(ours)
    torch.testing.assert_close(ours(idx), theirs(idx), rtol=1e-4, atol=1e-4)


def test_grouped_queries_are_repeated_heads():
    grouped = noisy(GPT(small(n_head=4, n_kv_head=2)))
    full = GPT(small(n_head=4, n_kv_head=4))
    weights = grouped.state_dict()
    for name, w in weights.items():
        if name.endswith(("c_k.weight", "c_v.weight", "ve_gate.weight")):
            heads = w.view(2, -1, w.size(-1)).repeat_interleave(2, 0)
            weights[name] = heads.reshape(-1, w.size(-1))
        elif name.startswith("value_embeds"):
            weights[name] = w.view(w.size(0), 2, -1).repeat_interleave(2, 1).flatten(1)
    full.load_state_dict(weights)
    idx = torch.randint(0, 100, (2, 12))
    torch.testing.assert_close(grouped(idx), full(idx), rtol=1e-4, atol=1e-5)


SWITCHES = [
    {"positions": "learned"},
    {"norm": "layer"},
    {"norm_learnable": True},
    {"norm": "layer", "norm_learnable": True},
    {"embedding_norm": False},
    {"bias": True},
    {"qk_norm": False},
    {"qk_scale": 1.2},
    {"activation": "gelu"},
    {"activation": "swiglu"},
    {"tied_head": True},
    {"logit_softcap": 0.0},
    {"value_embeddings": False},
    {"residual_scalars": False},
    {"window_pattern": "L"},
    {"n_kv_head": 1},
    {"smear": True},
    {"backout": True},
    {"rope_base": 100.0},
]


@pytest.mark.parametrize("switch", SWITCHES, ids=str)
def test_every_switch_changes_the_model_trains_and_counts(switch):
    config = small(**switch)
    model = noisy(GPT(config))
    assert model.parameter_counts() == parameter_counts(config)
    idx = torch.randint(0, 100, (2, 13), generator=torch.Generator().manual_seed(0))
    model(idx[:, :-1], idx[:, 1:]).backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []
    base = noisy(GPT(small()))
    if model.state_dict().keys() == base.state_dict().keys():
        shapes = {n: p.shape for n, p in base.state_dict().items()}
        if all(p.shape == shapes[n] for n, p in model.state_dict().items()):
            assert not torch.allclose(model(idx[:, :-1]), base(idx[:, :-1]), atol=1e-4)


@pytest.mark.parametrize("name", RECIPES)
def test_counts_by_formula_are_counts_by_tensor(name):
    recipe = RECIPES[name]
    config = replace(model_at(3, recipe), vocab_size=130, sequence_len=64)
    model = GPT(config)
    assert model.parameter_counts() == parameter_counts(config)
    assert model.flops_per_token() == flops_per_token(config)


def test_no_token_sees_its_future():
    model = noisy(GPT(small(smear=True, backout=True)))
    idx = torch.randint(0, 100, (1, 12))
    changed = idx.clone()
    changed[0, 7] = (changed[0, 7] + 1) % 100
    before, after = model(idx), model(changed)
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


def test_logits_are_fp32_cropped_and_bounded():
    model = noisy(GPT(small(logit_softcap=3.0)))
    model.compute_dtype = torch.bfloat16
    logits = model(torch.randint(0, 100, (2, 12)))
    assert logits.shape == (2, 12, 100) and logits.dtype == torch.float32
    assert logits.abs().max() <= 3.0


def test_loss_reductions_and_ignored_targets():
    model = noisy(GPT(small()))
    idx = torch.randint(0, 100, (2, 12))
    targets = torch.randint(0, 100, (2, 12))
    targets[0, :5] = -1
    each = model(idx, targets, loss_reduction="none")
    assert each.shape == (24,) and not each[:5].any()
    torch.testing.assert_close(model(idx, targets), each.sum() / 19)
    log_p = torch.log_softmax(model(idx).double(), -1)
    exact = -log_p[1].gather(-1, targets[1, :, None]).squeeze(-1)
    torch.testing.assert_close(each[12:].double(), exact, rtol=1e-4, atol=1e-5)


def test_start_values():
    config = GPTConfig(vocab_size=1000, n_layer=2, n_head=2, n_kv_head=2, n_embd=256)
    model = GPT(config)
    model.init_weights(seed=3)
    block, width = model.transformer["h"][1], 256
    for weight in (block.attn.c_q.weight, block.mlp.c_fc.weight, model.value_embeds["1"].weight):
        assert weight.std().item() == pytest.approx(width**-0.5, rel=0.02)
        assert weight.abs().max().item() <= 3**0.5 * width**-0.5
    assert not block.attn.c_proj.weight.any() and not block.mlp.c_proj.weight.any()
    assert not block.attn.ve_gate.weight.any()
    assert model.transformer["wte"].weight.std().item() == pytest.approx(1.0, rel=0.02)
    assert model.lm_head.weight.std().item() == pytest.approx(0.001, rel=0.02)
    assert model.resid_lambdas.tolist() == [1.0, 1.0]
    assert model.x0_lambdas.tolist() == pytest.approx([0.1, 0.1])
    twin = GPT(config)
    twin.init_weights(seed=3)
    assert all(map(torch.equal, model.parameters(), twin.parameters()))


def test_start_values_of_run_6():
    model = GPT(replace(model_at(4, RECIPES["run6"]), vocab_size=128))
    assert model.resid_lambdas.tolist() == pytest.approx(
        [1.15, 1.15 - 0.1 / 3, 1.15 - 0.2 / 3, 1.05]
    )
    assert model.x0_lambdas.tolist() == pytest.approx([0.2, 0.15, 0.1, 0.05])
    fc, gate = model.transformer["h"][0].mlp.c_fc.weight, model.transformer["h"][3].attn.ve_gate
    assert fc.std().item() == pytest.approx(0.4 * 256**-0.5, rel=0.02)
    assert gate.weight.min() >= 0 and gate.weight.max() <= 0.02
    assert model.backout_lambda.item() == pytest.approx(0.2) and model.smear_lambda.item() == 0


def test_too_long_a_text_is_refused():
    learned = GPT(small(positions="learned"))
    with pytest.raises(UserError, match="13 tokens and the model has 12 positions"):
        learned(torch.zeros(1, 13, dtype=torch.long))


def test_bf16_products_stay_close_to_fp32():
    model = noisy(GPT(small(smear=True, backout=True)))
    idx = torch.randint(0, 100, (2, 12))
    exact = model(idx)
    model.compute_dtype = torch.bfloat16
    assert (model(idx) - exact).norm() / exact.norm() < 0.05
