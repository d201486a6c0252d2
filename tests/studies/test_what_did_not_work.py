"""Ideas that were left out: each does what its paper says, and only that."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nanogpt2 import lab
from nanogpt2.config import GPTConfig
from nanogpt2.data.tokenizer import SPECIAL_TOKENS
from nanogpt2.lab.trials import Results, Trial
from nanogpt2.lab.variants import DyT, dynamic_tanh
from nanogpt2.lab.variations import record_summary, trials
from nanogpt2.model.gpt import GPT
from nanogpt2.model.norm import Norm
from nanogpt2.optim import build_optimizer
from nanogpt2.recipes import LAPTOP
from nanogpt2.reported import LEADERBOARD, SOURCES
from nanogpt2.rungs import Ladder
from nanogpt2.studies.what_did_not_work import ideas, measures, pictures
from nanogpt2.studies.what_did_not_work.listed import ENDED_BY, LISTED
from nanogpt2.studies.what_did_not_work.plan import IDEAS

CONFIG = GPTConfig(
    n_layer=2, n_head=2, n_kv_head=2, n_embd=32, sequence_len=24, vocab_size=300,
    value_gate_channels=8, window_pattern="SL",
)  # fmt: skip
BOS = CONFIG.vocab_size - len(SPECIAL_TOKENS)
SEEDS = (0, 1)


def model_of(seed: int = 0) -> GPT:
    """A small model in which everything has a value, as if it had been trained."""
    model = GPT(CONFIG)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def tokens(length: int, seed: int) -> torch.Tensor:
    return torch.randint(0, BOS, (1, length), generator=torch.Generator().manual_seed(seed))


def test_half_of_the_channels_turn_and_the_others_stand_still() -> None:
    x = torch.randn(1, 5, 2, 16)
    angle = torch.outer(torch.arange(5.0), 10_000.0 ** (-torch.arange(0, 16, 2) / 16))
    with ideas.half_rotary():
        from nanogpt2.model import attention

        y = attention.rotate(x, angle.cos(), angle.sin())
    assert torch.equal(y[..., 8:], x[..., 8:])
    assert torch.equal(y[:, 0], x[:, 0]) and not torch.allclose(y[:, 1:, :, :8], x[:, 1:, :, :8])
    slow = torch.outer(torch.arange(5.0), 10_000.0 ** (-torch.arange(0, 8, 2) / 8))
    alone = attention.rotate(x[..., :8], slow.cos(), slow.sin())
    torch.testing.assert_close(y[..., :8], alone)


def test_inside_documents_a_document_reads_as_it_does_alone() -> None:
    """Rotary scores know only differences of positions, so that its place in the row is nothing."""
    model, bos = model_of(), torch.tensor([[BOS]])
    first, second = torch.cat((bos, tokens(6, 1)), 1), torch.cat((bos, tokens(9, 2)), 1)
    row = torch.cat((first, second), dim=1)
    apart = model(second)
    assert (model(row)[:, 7:] - apart).abs().max() > 0.1, "else there is nothing to keep apart"
    with ideas.inside_documents():
        together = model(row)
        assert torch.allclose(model(second), apart, atol=1e-5)
    assert torch.allclose(together[:, :7], model(first), atol=1e-5)
    assert (together[:, 7:] - apart).abs().max() < 0.02, "tables of cosines are kept in bf16"
    assert (model(row)[:, 7:] - apart).abs().max() > 0.1, "and after the block all is as before"


def test_two_at_once_adds_the_loss_of_the_token_after_the_next() -> None:
    with ideas.two_at_once():
        model = GPT(CONFIG)
        model.init_weights(3)
        idx, targets = tokens(12, 1), tokens(12, 2)
        scored = model.eval()(idx, targets)
        trained = model.train()(idx, targets)
        hidden = torch.nn.functional.rms_norm(model.hidden(idx), (32,))
        logits = model.logits(hidden[:, :-1])
        further = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets[0, 1:])
        torch.testing.assert_close(trained, scored + further, rtol=1e-4, atol=1e-4)
        trained.backward()
        assert model.further.weight.grad is not None and model.further.weight.grad.any()
    plain = GPT(CONFIG)
    plain.init_weights(3)
    assert torch.equal(plain(idx, targets), scored), "what is scored is the model without it"


def test_adamw_at_every_second_step_is_adamw_on_the_mean_of_two_gradients() -> None:
    model = GPT(CONFIG)
    before = model.lm_head.weight.detach().clone()
    optimizer = build_optimizer(model, LAPTOP, dtype=torch.float32)
    group = next(g for g in optimizer.param_groups if "lm_head.weight" in g["names"])
    copy = torch.nn.Parameter(before.clone())
    plain = torch.optim.AdamW(
        [copy], 2**0.5 * group["lr"], group["betas"], group["eps"], group["weight_decay"]
    )
    with ideas.adamw_every_second():
        for step in range(6):
            matrix = model.blocks[0].attn.c_q.weight.detach().clone()
            for parameter in model.parameters():
                parameter.grad = torch.randn(
                    parameter.shape, generator=torch.Generator().manual_seed(step)
                )
            mine = model.lm_head.weight.grad
            copy.grad = mine.clone() if step % 2 == 0 else (copy.grad + mine) / 2
            optimizer.step()
            assert not torch.equal(model.blocks[0].attn.c_q.weight, matrix), "Muon moves each time"
            if step % 2:
                plain.step()
            torch.testing.assert_close(model.lm_head.weight.detach(), copy.detach())
    assert not torch.equal(model.lm_head.weight, before)


def test_dyt_takes_the_place_of_every_norm_of_the_stream() -> None:
    with dynamic_tanh():
        model = GPT(CONFIG)
    assert not any(isinstance(module, Norm) for module in model.modules())
    assert sum(isinstance(module, DyT) for module in model.modules()) == 2 * 2 + 2
    x = torch.randn(3, 32)
    assert torch.allclose(model.final_norm(x), torch.tanh(x / 2))
    assert model(tokens(8, 0)).isfinite().all()


def test_a_table_of_pairs_is_empty_at_first_and_knows_this_token_and_the_one_before() -> None:
    with ideas.bigram_table():
        model = GPT(CONFIG)
        model.init_weights(3)
    plain = GPT(CONFIG)
    plain.init_weights(3)
    idx = tokens(10, 4)
    assert torch.equal(model(idx), plain(idx))
    torch.nn.init.normal_(model.wte.pairs.weight)
    looked_up = model.wte(idx)
    other = idx.clone()
    other[0, 4] = (other[0, 4] + 1) % BOS
    changed = (model.wte(other) != looked_up).any(-1)[0]
    assert changed.nonzero().flatten().tolist() == [4, 5]


def test_runs_share_the_ladders_top_and_its_swiglu() -> None:
    made = {(trial.name, trial.seed): trial for trial in trials(IDEAS, SEEDS)}
    assert len({trial.identity for trial in made.values()}) == len(made) == 2 * (1 + len(IDEAS))
    ladder = Ladder()
    assert made["top", 1].recipe == ladder.top
    the_ladders = Trial("with-swiglu", ladder.later["swiglu"], 0)
    assert made["with-swiglu", 0].identity == the_ladders.identity
    assert {idea.expected for idea in IDEAS.values()} == {"-", "0", "+"}


def results_of(folder: Path) -> Results:
    """Runs of which each idea's number is its place in the list, in thousandths of a bit."""
    results = Results(folder)
    folder.mkdir()
    for trial in trials(IDEAS, SEEDS):
        key = trial.name.removeprefix("with-")
        off = [*IDEAS].index(key) + 1 if key in IDEAS else 0
        bpb = 2 + 0.1 * trial.seed + 0.001 * off * (1 + 0.01 * trial.seed)
        results.write(
            trial,
            {"name": trial.name, "seed": trial.seed, "identity": trial.identity, "bpb": bpb,
             "cpu_seconds": 100.0, "parameters": 1000 + off, "machine": "one",
             "data": "text"},
        )  # fmt: skip
    return results


def test_the_record_is_told_as_it_is(tmp_path: Path) -> None:
    """Gains of 1, 2, ... thousandths without noise: all worse, in time by as many percent."""
    folder = results_of(tmp_path / "ladder").folder
    seconds = {"top": 0.2} | {
        f"with-{key}": 0.2 + 0.002 * place for place, key in enumerate(IDEAS, 1)
    }
    lab.record(
        "what_did_not_work-seconds", command="", configuration={}, seed=0, tokens=0, seconds=0,
        curve=[], results={"seconds": seconds}, folder=tmp_path,
    )  # fmt: skip
    kept = lab.recorded(
        "what_did_not_work", record_summary("what_did_not_work", IDEAS, SEEDS, folder).parent
    )
    found = measures.tried(kept)
    assert [worth.sign for worth in found.values()] == ["+"] * len(IDEAS)
    assert [worth.slower for worth in found.values()] == pytest.approx(
        [1 + 0.01 * place for place in range(1, len(IDEAS) + 1)]
    )
    swiglu = found["swiglu"]
    assert swiglu.excluded == pytest.approx(swiglu.found.difference + swiglu.found.margin)
    note = measures.note(kept, "swiglu")
    assert f"{swiglu.excluded:.4f}" in note["excluded"] and "2 seeds in pairs" in note["found"]
    # seeds are a tenth of a bit apart: a pair does not notice, two runs at random are a coin
    assert set(measures.one_seed(kept).values()) == {(1.0, 0.5)}
    assert "+0.0010" in pictures.tried_table(kept).text
    assert "100% | 50%" in pictures.seeds_table(kept).text
    assert "SwiGLU +0.0010" in pictures.tried_picture(kept).text
    assert "1.41 times the rate" in pictures.expected_table(kept).text


def test_time_is_worth_what_a_longer_run_would_have_gained() -> None:
    loss, k = LEADERBOARD["run1"].val_bpb, measures.exponent()
    assert measures.time_worth(0.0) == 0
    assert measures.time_worth(1.0) == pytest.approx(loss * (1 - 2**-k))
    assert measures.time_worth(0.001) == pytest.approx(0.001 * k * loss, rel=1e-3)
    assert "wins" in pictures.clock_frame(0.05, 1.1 * measures.time_worth(0.05))[1]
    assert "loses" in pictures.clock_frame(0.05, 0.9 * measures.time_worth(0.05))[1]


def test_the_list_says_of_each_idea_what_ended_it_and_where_from() -> None:
    assert {row.ended_by for row in LISTED} <= set(ENDED_BY) == set(pictures.GATES)
    assert {row.key for row in LISTED} <= set(SOURCES)
    assert len({row.idea for row in LISTED}) == len(LISTED)
    assert all(row.said for row in LISTED)
    told = pictures.sieve().text
    assert f"{len(LISTED)} ideas go in" in told and "0 come out" in told
    listed = pictures.listed_table()
    assert listed.html.count("<button") == 8 and listed.html.count("<tr>") == len(LISTED) + 1
