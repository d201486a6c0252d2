"""The chapter's measurements against mathematics, and its failures against the package."""

from __future__ import annotations

import math

import pytest
import torch

from nanogpt2.lab import small_config
from nanogpt2.model.gpt import GPT
from nanogpt2.optim import muon as muon_room
from nanogpt2.optim import polar_express as express_room
from nanogpt2.optim.sharded import MuonAdamW
from nanogpt2.studies import muon
from nanogpt2.studies.muon.measures import stable_rank
from nanogpt2.studies.muon.pictures import EXAMPLE


def test_mapped_is_the_polynomials_in_turn() -> None:
    s = torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64)
    once = 2 * s + 3 * s**3 - s**5
    torch.testing.assert_close(muon.mapped(s, [(2.0, 3.0, -1.0)]), once)
    torch.testing.assert_close(muon.mapped(s, [(2.0, 3.0, -1.0), (0.5, 0.0, 0.0)]), once / 2)
    assert torch.allclose(muon.mapped(torch.ones(1), muon.NEWTON_SCHULZ), torch.ones(1))


@pytest.mark.parametrize("shape", [(12, 12), (8, 20), (20, 8)])
def test_spectrum_and_stable_rank_agree_with_the_decomposition(shape: tuple[int, int]) -> None:
    g = torch.randn(shape)
    values = torch.linalg.svdvals(g.double())
    torch.testing.assert_close(muon.spectrum(g), values / values[0], atol=1e-6, rtol=1e-5)
    expected = float(values.square().sum() / values[0] ** 2)
    assert stable_rank(g) == pytest.approx(expected)
    assert stable_rank(torch.eye(7)) == pytest.approx(7)


def test_directions_counts_the_squared_norm() -> None:
    assert muon.directions(torch.ones(10), 0.9) == 9
    assert muon.directions(torch.tensor([10.0, 1.0, 1.0]), 0.9) == 1


def test_flops_are_those_of_the_products() -> None:
    assert muon.polar_express_flops(8, 8, 1) == 3 * 2 * 8**3
    assert muon.polar_express_flops(8, 32) == muon.polar_express_flops(32, 8)


def test_norms_of_neurons_are_equal_after_the_first_step() -> None:
    found = muon.neuron_lengths(torch.randn(64, 16))
    assert found["before"].std() > 0.01 * found["before"].mean()
    torch.testing.assert_close(found["after"], found["after"].mean().expand(64))


def test_groups_cover_the_model() -> None:
    model = GPT(small_config(2))
    rows = muon.who_updates_what(model)
    assert sum(row[4] for row in rows) == sum(p.numel() for p in model.parameters())
    assert {row[1] for row in rows} == {"Muon", "AdamW"}


@pytest.mark.parametrize("stretch", [1, 10_000])
def test_frames_say_what_they_show(stretch: float) -> None:
    picture, alt = muon.ellipse_frame(stretch, 0)
    assert picture.startswith("<svg") and f"ratio {stretch:,}" in alt
    assert "Polar Express" in muon.race_frame(2)[1]
    assert "of 64 directions, 0 " in muon.precision_frame(5, "fp32")[1]


def test_without_guards_rows_overflow_in_bf16_alone() -> None:
    def longest(*arguments: object) -> float:
        return float(muon.longest_row(*arguments).split(" / ")[1])  # type: ignore[arg-type]

    assert longest(False, 1.0, torch.float32) < 1.2
    assert longest(False, 1.0, torch.bfloat16) > 1e6
    assert longest(True, 1.0, torch.bfloat16) < 1.2
    assert longest(False, 1.02, torch.bfloat16) < 1.2


def test_failures_leave_the_package_as_it_was() -> None:
    before = (
        express_room.COEFFICIENTS,
        muon_room.shape_factor,
        muon_room.neuron_axis,
        muon_room.variance_scale,
    )
    for failure in (
        muon.unguarded,
        muon.shapes_swapped,
    ):
        with pytest.raises(ZeroDivisionError), failure():
            raise ZeroDivisionError
    assert before == (
        express_room.COEFFICIENTS,
        muon_room.shape_factor,
        muon_room.neuron_axis,
        muon_room.variance_scale,
    )


def test_swapped_shapes_move_the_factor_and_the_neurons() -> None:
    """One step of the real optimizer on a tall matrix, from zero."""

    def stepped() -> tuple[torch.Tensor, torch.Size]:
        w = torch.nn.Parameter(torch.zeros(32, 8))
        w.grad = torch.randn(32, 8, generator=torch.Generator().manual_seed(1))
        rates = {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "beta2": 0.0}
        choices = {"iterations": 5, "divisor": 1.02, "equalize_rows": False, "fix_norm": False}
        choices |= {"polynomial": "polar_express", "cautious": True}
        group = {"kind": "muon", "params": [w], "names": ["w"], **rates, **choices}
        optimizer = MuonAdamW([group], dtype=torch.float32)
        optimizer.step()
        return w.detach(), optimizer.state[w]["second_moment"].shape

    right, state = stepped()
    with muon.shapes_swapped():
        swapped, other = stepped()
    assert float(swapped.norm() / right.norm()) == pytest.approx(math.sqrt(8 / 32), rel=1e-3)
    assert state == (1, 32, 1) and other == (1, 1, 8)


def test_verdict_reads_the_ranks() -> None:
    assert muon.verdict([95.0, 96.0], [3.0, 4.0], 96) == 0
    assert muon.verdict([20.0, 22.0], [3.0, 4.0], 96) == 1
    assert muon.verdict([20.0, 22.0], [19.0, 23.0], 96) == 2
    assert muon.verdict([3.0, 4.0], [20.0, 22.0], 96) == 3


def test_the_opening_shows_the_polar_factor() -> None:
    """Of G = Q H: Q is orthogonal, H symmetric and positive; what the chapter finds by hand."""
    q = torch.tensor([[8.0, -4], [4, 8]]) / 80**0.5
    h = q.T @ torch.tensor(EXAMPLE)
    torch.testing.assert_close(q @ q.T, torch.eye(2))
    torch.testing.assert_close(h, h.T)
    lengths = torch.linalg.eigvalsh(h)
    told = muon.flattened().text
    assert f"lengths {lengths[1]:.2f} and {lengths[0]:.2f}" in told
    assert f"{q[0, 0]:.2f}, {q[0, 1]:.2f}; {q[1, 0]:.2f}, {q[1, 1]:.2f}" in told
