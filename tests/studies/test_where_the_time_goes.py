"""What the chapter on where the time goes reckons and measures, against other ways to the same."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from nanogpt2 import lab, reported
from nanogpt2.costs import record_mfu
from nanogpt2.depth import attention_flops, dial
from nanogpt2.kernels.fp8 import fp8_linear, fp8_supported
from nanogpt2.kernels.windows import window_mask
from nanogpt2.memory import ACTIVATION_BYTES, activation_bytes
from nanogpt2.studies import where_the_time_goes as where
from nanogpt2.studies.where_the_time_goes.measures import kind_of
from nanogpt2.studies.where_the_time_goes.roofline import LINK, Part

TINY = replace(dial(12).model, n_layer=2, n_embd=128, n_head=1, n_kv_head=1, sequence_len=32)
TINY = replace(TINY, vocab_size=128)


def test_a_part_takes_the_longer_of_its_two_times() -> None:
    assert Part("", 10, 1, peak=5, bandwidth=1).seconds == 2
    assert Part("", 10, 1, peak=5, bandwidth=1).bound == "arithmetic"
    assert Part("", 10, 9, peak=5, bandwidth=3).seconds == 3
    assert Part("", 10, 9, peak=5, bandwidth=3).bound == "memory"


def test_the_parts_of_a_step_have_the_models_flops() -> None:
    model, tokens, seconds = where.record_step("run1")
    at = dial(recipe="run1")
    assert tokens * 8 == at.batch_tokens
    assert seconds * at.iterations == pytest.approx(float(reported.RUN1_SECONDS))
    parts = {part.name: part for part in where.step_parts(model, tokens)}
    products = parts["products in blocks"].flops + parts["head's products"].flops
    assert products + attention_flops(model) * tokens == at.flops_per_token * tokens
    # seven products forward and backward where the formula has six, over the pairs of the mask
    seen = sum(int(window_mask(2048, 2048, left).sum()) for left, _ in model.window_sizes())
    pairs = seen / 2048 * 14 * model.n_embd * tokens
    assert parts["attention"].flops == pytest.approx(pairs, rel=1e-6)
    assert parts["exchange"].bandwidth == LINK
    assert sum(part.seconds for part in parts.values()) < seconds  # a floor


def test_fp8_halves_products_and_adds_casts() -> None:
    model, tokens, _ = where.record_step("run2")
    half, eighth = (
        {part.name: part for part in where.step_parts(model, tokens, precision=precision)}
        for precision in ("bf16", "fp8")
    )
    products = "products in blocks"
    assert eighth[products].seconds == pytest.approx(half[products].seconds / 2)
    assert eighth[products].bytes < half[products].bytes
    assert set(eighth) - set(half) == {"casts to fp8"}
    same = set(half) - {products, "head's products"}
    assert all(half[name] == eighth[name] for name in same)
    floors = [sum(p.seconds for p in found.values()) for found in (half, eighth)]
    # the roofs allow what was reported, and not much more
    assert 1 < reported.FP8_AFTER / reported.FP8_BEFORE < floors[0] / floors[1] < 1.5


def test_mfu_by_this_books_count_is_the_records() -> None:
    rows = dict(where.mfu_rows())
    assert rows["as this book counts"] == f"{record_mfu('run1'):.1%}"
    assert len(set(rows.values())) == len(rows) == 5


def test_frames_say_what_the_formulas_say() -> None:
    told = where.step_frame(24, 16, "bf16")[1]
    parts = where.step_parts(dial(24).model, 2**16)
    assert [int(ms) for ms in re.findall(r"(\d+) ms \(", told)] == [
        round(1000 * part.seconds) for part in parts
    ]
    full, short = (where.attention_frame(w, "memory", 8192)[1] for w in ("L", "SSSL"))
    assert full == short  # masked scores are computed all the same
    full, short = (where.attention_frame(w, "tiles", 8192)[1] for w in ("L", "SSSL"))
    assert full != short
    assert "does not fit" in where.memory_frame(24, 32, "off")[1]
    assert ": fits" in where.memory_frame(24, 32, "on")[1]
    assert f"{1000 * where.record_step()[2]:.0f} ms" in where.where_it_went("why").text


def test_every_part_of_a_step_is_timed() -> None:
    found = where.step_seconds(TINY, rounds=1)
    assert list(found) == ["forward", "backward", "Muon", "AdamW"] and min(found.values()) > 0
    work = where.pass_work(TINY)
    assert work["products"].calls > 0 and work["attention"].calls > 0
    assert work["loss"].calls == 1 and work["passes over memory"].calls > 100


@pytest.mark.parametrize(
    "operation, kind",
    [
        ("aten::mm", "products"),
        ("aten::mm.out", "products"),
        ("aten::mul.Tensor", "passes over memory"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("nanogpt2::chunked_loss", "loss"),
    ],
)
def test_operations_have_a_kind(operation: str, kind: str) -> None:
    assert kind_of(operation) == kind


def test_traffic_counts_what_goes_in_and_comes_out_and_no_views() -> None:
    x, y = torch.ones(10, 10), torch.ones(10, 10)
    work = where.work_of(lambda: (x + y).view(100).square())
    assert (work["passes over memory"].calls, work["passes over memory"].bytes) == (2, 5 * 400)
    work = where.work_of(lambda: x @ y)
    assert work["products"].bytes == 3 * 400 and work["passes over memory"].calls == 0


def test_one_by_one_moves_more_than_fused() -> None:
    assert where.layer_values(4) > 3 * sum(where.LAYER_VALUES.values())


def test_kept_bytes_are_those_of_the_tensors_that_backward_needs() -> None:
    x, w = torch.ones(4, 8, requires_grad=True), torch.ones(8, 8, requires_grad=True)
    assert where.kept_bytes(lambda: x @ w) == (32 + 64) * 4
    assert where.kept_bytes(lambda: x @ w, [w]) == 32 * 4
    assert where.kept_bytes(lambda: x + x) == 0


def test_recomputation_keeps_less_and_about_what_the_planner_says() -> None:
    deeper = replace(TINY, n_layer=6)
    all_kept, inputs = (
        where.model_keeps(deeper, again) - where.model_keeps(TINY, again) for again in (False, True)
    )
    assert inputs < all_kept / 4
    planned = activation_bytes(deeper, 1, 4) - activation_bytes(TINY, 1, 4)
    assert planned == ACTIVATION_BYTES * 2 * 32 * 4 * 128
    assert 0.7 < all_kept / planned < 1.3


def test_graphs_are_counted() -> None:
    def whole(x: torch.Tensor) -> torch.Tensor:
        return x.relu().square()

    def broken(x: torch.Tensor) -> torch.Tensor:
        y = x.relu()
        print(float(y.max()) > 0)
        return y.square()

    rows = [(torch.ones(n, 2),) for n in (3, 4, 5)]
    assert where.graphs(whole, rows[:1] * 3) == [["relu", "square"]]
    assert len(where.graphs(whole, rows)) == 3
    assert len(where.graphs(whole, rows, dynamic=True)) == 1
    assert len(where.graphs(broken, rows[:1])) > 1


def test_rounded_masters_lose_updates_as_the_rate_falls() -> None:
    curve, bpb = where.in_bf16_masters(lab.small_data(), steps=6, seed=0)
    lost = [point["lost"] for point in curve]
    assert len(lost) == 6 and all(0 <= share <= 1 for share in lost)
    assert lost[-1] > 2 * lost[2] and bpb > 0


def test_a_scale_brings_small_numbers_into_the_format() -> None:
    small = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)) * 1e-6
    assert (where.through(small, "e4m3", "none") == 0).all()
    torch.testing.assert_close(where.through(small, "e4m3"), small, rtol=2**-4, atol=1e-8)
    frame = where.format_frames({"x": small})
    assert "100.0% become 0" in frame("x", "e4m3", "none")[1]
    assert "0.0% become 0" in frame("x", "e5m2", "its own")[1]
    rows = where.outlier_rows(torch.ones(32, 32))
    gone = [float(row[1].rstrip("%")) for row in rows]
    assert gone[0] == 0 and gone[-1] == 100


def test_products_in_fp8_are_those_of_the_kernel() -> None:
    generator = torch.Generator().manual_seed(0)
    x, w, g = (torch.randn(*shape, generator=generator) for shape in ((64, 32), (48, 32), (64, 48)))
    rows = where.product_rows({"activations": x, "weights": w, "gradient": g / 1e6})
    error = {row[0]: [float(cell.rstrip("%")) for cell in row[1:]] for row in rows}
    assert all(half < scaled < 10 for half, scaled, _ in error.values())
    assert error["to the input, G W"][2] > 50  # without a scale the gradient is gone
    if fp8_supported("cpu") is None:
        ours = where.through(x, "e4m3") @ where.through(w, "e4m3").mT
        torch.testing.assert_close(fp8_linear(x, w), ours, rtol=1e-2, atol=1e-2)


def test_packing_makes_tokens() -> None:
    assert where.packing_rate(lab.small_data(), tokens=5_000) > 0
