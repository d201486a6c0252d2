"""What the chapter on the plain GPT draws and measures."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
import torch

from nanogpt2 import lab
from nanogpt2.config import GPTConfig
from nanogpt2.depth import attention_flops, dial, flops_per_token, parameter_counts
from nanogpt2.lab.probing import looks_ahead
from nanogpt2.model.gpt import GPT
from nanogpt2.rungs import FOOT, Ladder
from nanogpt2.studies import plain_gpt as plain
from nanogpt2.studies.plain_gpt import changes, measures, pictures

TINY = GPTConfig.gpt2(n_layer=2, n_embd=64, n_head=2, sequence_len=32, vocab_size=2048)


def test_gpt2_has_the_parameters_that_its_weights_have_and_its_paper_has_not() -> None:
    rows = {name: total for name, _, _, total, _ in plain.gpt2_rows()}
    assert rows == {  # the sizes of the published files
        "small": 124_439_808,
        "medium": 354_823_168,
        "large": 774_030_080,
        "XL": 1_557_611_200,
    }
    told = {name: float(words.split()[0]) * 1e6 for name, *_, words in plain.gpt2_rows()}
    assert all(1e6 < rows[name] - told[name] < 20e6 for name in rows)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_a_plain_gpt_is_torchs_own_layers(heads: int) -> None:
    config = replace(TINY, n_head=heads, n_kv_head=heads)
    model = plain.stirred(GPT(config))
    weights = plain.in_torchs_names(model)
    layer = torch.nn.TransformerEncoderLayer(
        64, heads, 256, dropout=0.0, norm_first=True, batch_first=True,
        activation=lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    )  # fmt: skip
    x = torch.randn(2, 32, 64)
    mask = torch.nn.Transformer.generate_square_subsequent_mask(32)
    for i, block in enumerate(model.blocks):
        mine = {k.removeprefix(f"h.{i}."): v for k, v in weights.items() if k[:4] == f"h.{i}."}
        layer.load_state_dict(mine)
        theirs = layer(x, src_mask=mask, is_causal=True)
        torch.testing.assert_close(block(x, None, None, None, "auto"), theirs, atol=1e-5, rtol=1e-4)
    assert {k for k in weights if not k.startswith("h.")} == {
        "wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias",
    }  # fmt: skip


def test_flops_are_the_formulas_but_for_vectors_and_hidden_scores() -> None:
    vectors = 6 * parameter_counts(TINY)["vectors"]
    assert flops_per_token(TINY) - measures.counted_flops(TINY) == vectors > 0
    windowed = lab.small_config(2, sequence_len=32, window_pattern="SL", value_embeddings=False)
    full = replace(windowed, window_pattern="L")
    hidden = attention_flops(full) - attention_flops(windowed)
    assert measures.counted_flops(windowed) - flops_per_token(windowed) == hidden > 0
    ((name, formula, counted, share),) = plain.flop_rows({"tiny": TINY})
    assert (name, formula, counted) == ("tiny", flops_per_token(TINY), measures.counted_flops(TINY))
    assert share == f"{attention_flops(TINY) / formula:.1%}"


@pytest.mark.parametrize("config", [TINY, lab.small_config(2, sequence_len=64)])
def test_bytes_are_those_of_the_planner_and_its_estimate_is_on_the_safe_side(
    config: GPTConfig,
) -> None:
    *exact, (_, estimate, kept) = plain.byte_rows(config, rows=2)
    assert [formula for _, formula, _ in exact] == [counted for *_, counted in exact]
    assert estimate / 3 < kept < estimate


def test_with_outputs_at_zero_a_model_starts_as_its_tables_and_else_it_grows() -> None:
    found = plain.stream_by_depth(replace(TINY, n_layer=6), list(plain.STARTS))
    assert set(found["zero"]) == {found["zero"][0]}
    gpt2, loud = found["GPT-2's"], found["like the others"]
    assert gpt2 == sorted(gpt2) and loud == sorted(loud)
    assert loud[-1] > 10 * gpt2[-1] > 10 * found["zero"][-1]


def test_a_start_changes_the_output_matrices_alone_and_ends_with_its_block() -> None:
    right = GPT(TINY)
    with changes.outputs_start("GPT-2's"):
        changed = GPT(TINY)
    for (name, a), b in zip(right.named_parameters(), changed.parameters(), strict=True):
        assert torch.equal(a, b) == (not name.endswith("c_proj.weight")), name
    outputs = [block.mlp.c_proj.weight.detach() for block in changed.blocks]
    spread = float(torch.stack([w.std() for w in outputs]).mean())
    assert spread == pytest.approx(0.02 / math.sqrt(4), rel=0.02)
    assert not any(p.any() for n, p in GPT(TINY).named_parameters() if n.endswith("c_proj.weight"))


def test_only_the_output_matrices_have_a_gradient_in_the_first_step() -> None:
    rows = {name: sizes for name, *sizes in plain.first_gradients(lab.small_config(2), steps=2)}
    writing = {name for name in rows if "output" in name}
    assert len(writing) == 2
    for name, (first, second) in rows.items():
        assert (first > 0) == (name in writing) and second > 0, name


def test_who_knows_nothing_pays_the_logarithm_of_the_vocabulary() -> None:
    config = GPTConfig.gpt2(n_layer=2, n_embd=64, n_head=2, sequence_len=64, vocab_size=2048)
    assert plain.first_loss(config) == pytest.approx(math.log(2048), abs=0.05)
    assert plain.first_loss(replace(config, wte_std=1.0)) > 3 * math.log(2048)


def test_heads_cut_across_see_later_tokens_and_one_head_cannot_be_cut() -> None:
    data = lab.small_data()
    model = plain.stirred(GPT(replace(TINY, sequence_len=64)))
    assert looks_ahead(model, data) < 1e-4
    with plain.heads_cut_across():
        assert looks_ahead(model, data) > 1e-2
        one = plain.stirred(GPT(replace(TINY, n_head=1, n_kv_head=1)))
        assert looks_ahead(one, data) < 1e-4


def test_the_dials_facts_are_the_records() -> None:
    facts = pictures.dial_facts("run1", 24)
    assert facts["steps"] == "16,704" and facts["tokens"] == "8.76 G"
    assert facts["time, 8 H100"] == "3.0 h" and facts["dollars"] == "73.00"
    assert pictures.dial_facts("run6", 24)["time, 8 H100"] == "99 min"


@pytest.mark.parametrize(("recipe", "depth"), [("run1", 4), ("run4", 12), ("run6", 32)])
def test_the_drawing_is_to_scale(recipe: str, depth: int) -> None:
    drawn, alt = plain.scale_frame(recipe, depth)
    found = dial(depth, recipe)
    assert f"width {found.n_embd:,};" in alt and f"steps {found.iterations:,};" in alt
    scale = pictures.TALL / found.model.padded_vocab_size
    areas = dict.fromkeys(pictures.KINDS.values(), 0.0)
    for width, height, fill in re.findall(
        r'width="([\d.]+)" height="([\d.]+)" fill="([^"]+)"', drawn
    ):
        if (width, height) != ("14", "14") and fill in areas:
            areas[fill] += float(width) * float(height) / scale**2
    counts = found.parameters
    tables = areas[pictures.KINDS["value tables"]]
    assert tables == pytest.approx(counts["value_embeddings"], rel=0.05)
    blocks = areas[pictures.KINDS["attention"]] + areas[pictures.KINDS["MLP"]]
    assert blocks == pytest.approx(counts["matrices"], rel=0.06)  # coordinates have one digit
    assert areas[pictures.KINDS["MLP"]] == pytest.approx(2 / 3 * blocks, rel=0.05)


def test_growth_and_shares_follow_the_dial() -> None:
    rows = {row[0]: row[1:] for row in plain.growth_rows((12, 24))}
    assert rows["12"] == ["1"] * 4 and rows["24"][0] == "2"
    times = dial(24, "run1").total_flops / dial(12, "run1").total_flops
    assert float(rows["24"][3]) == pytest.approx(times, rel=0.01)
    assert 16 < times < 52  # "about 40" on the page
    for _, *shares in plain.share_rows((4, 32)):
        assert sum(float(share.rstrip("%")) for share in shares) == pytest.approx(100, abs=0.2)


def test_pictures_say_what_they_show() -> None:
    flow = plain.flow_picture("The state", [5, 7], "why")
    assert "2 tokens become rows" in flow.html and "5 7" in flow.html
    shown = plain.start_lines({"zero": [1.0, 1.0], "loud": [1.0, 20.0]}).html
    assert "after the last: zero 1, loud 20" in shown


def test_the_foot_of_the_ladder_is_the_chapters_model() -> None:
    foot = Ladder().climbed[FOOT].model
    sizes = ("sequence_len", "vocab_size", "n_layer", "n_embd", "n_head")
    assert foot == GPTConfig.gpt2(**{name: getattr(foot, name) for name in sizes})


def test_shapes_that_are_compared_have_equal_matrices_and_decay() -> None:
    shapes = [dial(recipe=v.trial("", 0).recipe) for v in changes.VARIATIONS.values()]
    assert [(at.n_layer, at.n_embd, at.n_head) for at in shapes] == [
        (1, 256, 4), (16, 64, 1), (4, 128, 1),
    ]  # fmt: skip
    top = dial(recipe=Ladder().top)
    for at in shapes:
        assert 12 * at.n_layer * at.n_embd**2 == 12 * top.n_layer * top.n_embd**2
        assert at.weight_decay == pytest.approx(top.weight_decay)
        assert at.tokens == top.tokens
