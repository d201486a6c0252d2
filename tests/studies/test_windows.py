"""What the chapter on sliding windows draws and measures, against the mask itself."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanogpt2 import lab
from nanogpt2.config import GPTConfig
from nanogpt2.depth import dial
from nanogpt2.inference.kv_cache import ring_sizes
from nanogpt2.kernels.windows import window_mask
from nanogpt2.model import attention as attention_room
from nanogpt2.model.gpt import GPT
from nanogpt2.studies import windows
from nanogpt2.studies.windows.changes import last_layer_short
from nanogpt2.studies.windows.pictures import tile_kinds


@given(st.integers(1, 40), st.integers(0, 60))
def test_pairs_are_the_mask_counted(length: int, window: int) -> None:
    assert windows.pairs(length, window) == int(window_mask(length, length, window).sum())


@given(st.integers(1, 40), st.integers(0, 40), st.integers(1, 16))
def test_tiles_cover_every_score_that_is_needed(length: int, window: int, tile: int) -> None:
    mask = window_mask(length, length, window)
    for (row, column), kind in tile_kinds(length, window, tile).items():
        part = mask[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile]
        assert {"skipped": not part.any(), "whole": bool(part.all()), "edge": True}[kind]


def test_frames_say_what_the_package_says() -> None:
    assert f"{windows.pairs(16, 3)} of 136" in windows.mask_frame(3)[1]
    svg, alt = windows.reach_frame("SSSL", "T/8", 8)
    known = [int(n) for n in re.findall(r"(\d+) (?:after|at)", alt)]
    assert known == [1, 9, 17, 25, 64, 64, 64, 64, 64] and "4: L" in alt and "5: S" in alt
    alt = windows.tiles_frame("T/4", 8)[1]
    assert f"where {windows.pairs(64, 16)} are needed" in alt
    alt = windows.ring_frame(11, window=7)[1]
    assert "tokens 3 to 10" in alt and "token 10 lies in slot 2" in alt


def test_pattern_rows_agree_with_the_dial_and_the_cache_with_its_rings() -> None:
    rows = {row[0]: row[1:] for row in windows.pattern_rows(12)}
    assert rows["SSSL, short T/2"][0] == dial(12, "run1").flops_per_token
    assert rows["L"][0] > rows["SSSL, short T/4"][0]
    config = dial(12, "run1").model
    (row,) = windows.cache_rows(12, (2048,))
    full = 2048 * config.n_layer
    assert float(row[3]) == pytest.approx(sum(ring_sizes(config, 2048)) / full, abs=0.006)


def test_timing_takes_every_way() -> None:
    found = windows.time_attention(
        [("sdpa", 300), ("banded", 64)], length=300, heads=1, head_dim=16, rounds=1
    )
    assert len(found) == 2 and min(found) > 0
    assert len(windows.model_seconds(1, ["L", "SSSL"], length=32, rounds=1)) == 2


def test_dispatch_has_one_choice_and_a_reason_each() -> None:
    rows = windows.dispatch_rows("cpu")
    assert [row[1] for row in rows].count("chosen") == 1
    assert all(row[2] for row in rows)


def test_one_key_short_shows_in_numbers() -> None:
    rows = windows.off_by_one([4, 64])
    assert rows[0][1] > rows[1][1] > 10 * rows[1][2]


def test_failures_change_attention_and_are_undone() -> None:
    right, sizes = attention_room.attention, GPTConfig.window_sizes
    q, k, v = (torch.randn(1, 12, 1, 8) for _ in range(3))
    later = v.clone()
    later[:, -1] += 1
    with windows.leaking_mask():
        leak = attention_room.attention
        assert not torch.equal(leak(q, k, v, 3)[:, -2], leak(q, k, later, 3)[:, -2])
    with windows.one_key_short():
        short = attention_room.attention(q, k, v, 4)
    torch.testing.assert_close(short, right(q, k, v, 3))
    with last_layer_short():
        assert lab.small_config().window_sizes()[-1] == (64, 0)
    assert attention_room.attention is right
    assert GPTConfig.window_sizes is sizes and lab.small_config().window_sizes()[-1] == (128, 0)


def test_influence_stops_where_the_windows_end() -> None:
    """With short windows in every layer, and two layers of 8 keys, nothing beyond 16 counts."""
    settings = {"steps": 2, "batch_size": 1, "evaluate_every": 1, "val_rows": 1}
    config = lab.small_config(2, short_window_divisor=16, n_embd=32, n_head=1, n_kv_head=1)
    with last_layer_short():
        run = lab.small_run(config, within=last_layer_short, **settings)
        found = windows.influence(run, lab.small_data(), rows=2)
    assert float(found.sum()) == pytest.approx(1, abs=1e-5)
    assert (found[17:] == 0).all() and (found[:17] > 0).all()
    assert isinstance(run.model(), GPT)


def test_the_opening_mixes_what_softmax_mixes() -> None:
    html = windows.one_query().html
    assert "26.25, of an output" in html and "query 9: q (1, 128)" in html
    assert html.count("var(--ng-c1)") >= 4  # the query's own row of the band
