"""What the chapter on value embeddings draws and measures."""

from __future__ import annotations

import re

import pytest
import torch

from nanogpt2 import lab
from nanogpt2.depth import dial
from nanogpt2.lab.variants import bigram_rows
from nanogpt2.model.gpt import GPT
from nanogpt2.studies import value_embeddings as ve
from nanogpt2.studies.value_embeddings import changes, measures


def small_model() -> GPT:
    """With output matrices and a head that are not zero, so that every part is heard."""
    model = GPT(lab.small_config(depth=2, n_embd=64, n_head=1, n_kv_head=1))
    model.init_weights(seed=0)
    with torch.no_grad():
        for block in model.blocks:
            block.attn.c_proj.weight.normal_(std=0.1)
        model.lm_head.weight.normal_(std=0.1)
    return model


def test_the_frame_adds_gate_times_row_whatever_the_context() -> None:
    def values(context: str, gate: float) -> torch.Tensor:
        alt = ve.value_frame(context, gate)[1].split(" are ")[1]
        return torch.tensor([float(n) for n in re.findall(r"-?\d+\.\d", alt)])

    first, second = ("by the river bank", "a bank of snow")
    row = values(first, 1.0) - values(first, 0.0)
    other = values(second, 2.0) - values(second, 0.0)
    torch.testing.assert_close(2 * row, other, atol=0.4, rtol=0)  # the alt has one digit


def test_products_run_away_and_sums_do_not() -> None:
    alt = ve.weights_frame(0.5, 10)[1]
    assert f"{6.0**23:.3g} times" in alt and "weight 5.1 at" in alt


@pytest.mark.parametrize(("depth", "tables"), [(12, 150_994_944), (24, 603_979_776)])
def test_parameters_and_flops_add_up_to_the_planners(depth: int, tables: int) -> None:
    rows = {row[0]: row[1:] for row in ve.compute_rows(depth)}
    assert rows["value tables"] == [tables, 0]
    assert rows["all"] == [
        dial(depth, "run1").parameters["total"],
        dial(depth, "run1").flops_per_token,
    ]


def test_memory_without_tables_is_smaller_by_their_bytes() -> None:
    rows = {row[0]: [float(cell) for cell in row[1:]] for row in ve.memory_rows()}
    for kind, bytes_each in (("parameters", 2), ("gradients", 2), ("optimizer's share", 1)):
        saved = rows[kind][0] - rows[kind][1]
        assert saved == pytest.approx(bytes_each * 0.603979776, abs=0.011), kind


def test_an_early_table_shows_the_next_token_and_a_right_one_does_not() -> None:
    right = small_model()
    idx = torch.randint(0, 2048, (1, 16))
    other = idx.clone()
    other[0, -1] = (other[0, -1] + 1) % 2048
    with torch.no_grad():
        assert torch.equal(right(idx)[:, :-1], right(other)[:, :-1])
        with ve.one_token_early():
            wrong = GPT(right.config)
        wrong.load_state_dict(right.state_dict())
        assert not torch.allclose(wrong(idx)[:, -2], wrong(other)[:, -2], atol=1e-4)
        assert torch.equal(wrong(idx)[:, :-2], wrong(other)[:, :-2])


def test_pairs_are_addressed_by_both_tokens_and_their_order() -> None:
    found = bigram_rows(torch.tensor([[5, 9, 5, 9, 7]]), 16_384)[0]
    assert found[1] == found[3] and found[1] != found[2] and found[3] != found[4]
    with changes.bigram_tables():
        model = GPT(lab.small_config(depth=2))
    (table,) = model.value_embeds.values()
    assert table.num_embeddings == 8 * 2048
    assert model(torch.zeros(1, 4, dtype=torch.long)).shape == (1, 4, 2048)


def test_gates_start_at_one_and_are_held_there() -> None:
    model, data = small_model(), lab.small_data()
    found = measures.gates(model, data, rows=1)
    assert list(found) == [1]
    assert torch.equal(found[1], torch.ones(128, 1))
    with torch.no_grad():
        idx = data.validation(1, 32)[0]
        before = model(idx)
        model.blocks[1].attn.ve_gate.weight.normal_()
        assert not torch.allclose(model(idx), before, atol=1e-3)
        with changes.gates_open():
            torch.testing.assert_close(model(idx), before)


def test_the_first_gradient_of_the_scalars_is_rounding() -> None:
    first, second = ve.first_steps(4, steps=2)
    assert first["gradient"].abs().max() < 1e-8 < 1e-4 < second["gradient"].abs().min()
    assert torch.equal(first["before"], torch.full((4,), 0.1))
    assert torch.equal(first["after"], second["before"])


def test_surprise_and_what_a_row_says() -> None:
    data = lab.small_data()
    among = measures.common_tokens(data)
    counts = torch.bincount(torch.as_tensor(data.train.astype("int64")))
    assert counts[among].min() >= 300 and (counts[among].diff() <= 0).all()
    found = measures.surprise(data, among, 1)
    united, states = (data.tokenizer.encode(word)[0] for word in (" United", " States"))
    place = {int(token): i for i, token in enumerate(among)}
    assert found[place[united]].argmax() == place[states]
    assert measures.agreement(found, found) == pytest.approx(1.0)
    assert measures.agreement(found, -found) == pytest.approx(-1.0)
    assert measures.echoes(torch.eye(50)) == 1.0
    assert measures.echoes(-torch.eye(50)) == 0.0
    said = measures.promises(small_model(), among[:100])
    assert {name: value.shape for name, value in said.items()} == {
        "embedding": (100, 100),
        "value table 1": (100, 100),
    }


def test_neighbours_leave_the_token_out() -> None:
    table = torch.eye(6)
    table[4] = table[1] + 0.1 * table[2]
    near = measures.neighbours(table, 1, 2, torch.arange(6))
    assert near[0][0] == 4 and 1 not in dict(near)


def test_words_show_their_spaces() -> None:
    rows = ve.word_rows({" in": {"a": [" of", "\n"], "b": [""]}})
    assert rows == [["_in", "_of  /", "(nothing)"]]


def test_guessing_by_frequency_is_worse_than_any_training() -> None:
    assert 2 < ve.guessing(lab.small_data(), rows=16) < 4


def test_pictures_say_what_they_show() -> None:
    config = lab.small_config(depth=2, n_embd=32, n_head=1, n_kv_head=1)
    run = lab.small_run(
        config, recipe=ve.equal_rates(0.5), steps=2, batch_size=1, evaluate_every=1, val_rows=1,
        probe=ve.scalars_probe,
    )  # fmt: skip
    last = f"{run.series('resid_lambdas.1')[-1]:.2f}"
    assert abs(run.series("resid_lambdas.0")[-1] - 1) > 0.1  # the rate is 0.5, not 0.005
    assert last in ve.scalar_map(run, "resid_lambdas").html
    spread = {"1": {"mean": [0.9], "low": [0.1], "high": [1.8]}}
    assert "layer 1, head 0: 0.90, from 0.10 to 1.80" in ve.gate_ranges(spread).html
    agreement = {"a": [0.0, 0.3] + [0.1] * 8, "b": [0.5] + [0.1] * 9}
    assert "a agrees best at distance 2; b agrees best" in ve.distance_lines(agreement).html
    assert "aria-label" in ve.block_path("why").html


def test_taking_apart_changes_what_it_names_and_nothing_else() -> None:
    config = lab.small_config(depth=2, n_embd=32, n_head=1, n_kv_head=1)
    run = lab.small_run(config, steps=2, batch_size=1, evaluate_every=1, val_rows=1)
    data = lab.small_data()
    found = ve.taken_apart(run, data, rows=2)
    assert found["as trained"] == lab.bits_per_byte(run.model(), data, rows=2)
    assert len(set(found.values())) == len(found)
