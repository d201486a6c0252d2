"""Every fast form against the definition whose signature it has, and the choice between them."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt2.optim import build_optimizer, fast
from nanogpt2.optim.adamw import adamw_scalars, adamw_update
from nanogpt2.optim.fast.adamw import adamw_compiled, adamw_in_pieces
from nanogpt2.optim.fast.muon import take_step_in_bands
from nanogpt2.optim.fast.polar_express import polar_express_by_halves
from nanogpt2.optim.muon import second_moment_shape, take_step
from nanogpt2.optim.polar_express import polar_express
from tests.optim.test_optimizer import steps
from tests.optim.test_polar_express import with_spectrum
from tests.optim.test_sharded import build

CPU = torch.device("cpu")


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 24), st.integers(1, 40)),
    iterations=st.integers(0, 5),
    divisor=st.sampled_from([1.01, 1.02, 3.0]),
)
def test_halves_and_gram_form_are_the_same_polynomial(shape, iterations, divisor):
    g = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = polar_express(g, iterations, divisor, torch.float64)
    found = polar_express_by_halves(g, iterations, divisor, torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("decades", [0, 2, 4])
def test_gram_form_in_bf16_is_nearly_as_good_as_the_definition(decades):
    g, _ = with_spectrum(96, 300, decades)
    exact = polar_express(g, dtype=torch.float64)

    def error(form):
        return (form(g.float()).double() - exact).norm() / exact.norm()

    assert error(polar_express_by_halves) < 1.3 * error(polar_express) + 0.05


@settings(max_examples=60)
@given(
    shape=st.lists(st.integers(1, 30), min_size=1, max_size=2),
    piece=st.integers(1, 200),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    lies=st.sampled_from(["by rows", "by columns", "only the rows that were read"]),
)
def test_adamw_in_pieces_is_adamw(shape, piece, dtype, lies):
    generator = torch.Generator().manual_seed(0)
    p, g = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    given = g
    if lies == "by columns":
        given = g.t().contiguous().t()
    elif lies == "only the rows that were read":
        g[torch.rand(shape[0], generator=generator) < 0.5] = 0
        given = g.to_sparse(1).coalesce()
    scalars = adamw_scalars({"lr": 0.1, "betas": (0.8, 0.95), "weight_decay": 0.1}, 3)
    whole, pieces = ([p.clone(), torch.ones(shape), torch.ones(shape)] for _ in range(2))
    adamw_update(whole[0], g, *whole[1:], *scalars, 1e-10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nanogpt2.optim.fast.adamw.PIECE", piece)
        adamw_in_pieces(pieces[0], given, *pieces[1:], *scalars, 1e-10)
    for expected, found in zip(whole, pieces, strict=True):
        torch.testing.assert_close(found, expected)


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 24), st.integers(1, 24)),
    band=st.integers(1, 400),
)
def test_a_step_in_bands_is_the_step(shape, band):
    generator = torch.Generator().manual_seed(0)
    w, x = (torch.randn(shape, generator=generator) for _ in range(2))
    moment = torch.rand(second_moment_shape(*shape), generator=generator)
    scalars = [torch.tensor(v) for v in (0.1, 0.2, 0.05)]
    whole, bands = ([w.clone(), x, moment.clone()] for _ in range(2))
    take_step(*whole, *scalars)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nanogpt2.optim.fast.muon.BAND", band)
        take_step_in_bands(*bands, *scalars)
    for expected, found in zip(whole, bands, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
def test_an_optimizer_of_fast_forms_steps_like_one_of_definitions(compiled, monkeypatch):
    """Halves, Gram form, pieces and matrices in place at once, in the shapes of a real model."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    recipe, model = build("run1")
    plain = build_optimizer(model, recipe, dtype=torch.float32)
    plain.steps.adamw, plain.steps.orthogonalize = adamw_update, polar_express
    plain.steps.take_step = take_step
    steps(model, recipe, plain, range(2))

    for name in ("LARGE_SIDE", "LARGE_MATRIX"):
        monkeypatch.setattr(fast, name, 1)
    monkeypatch.setattr("nanogpt2.optim.fast.adamw.PIECE", 500)
    _, twin = build("run1")
    quick = build_optimizer(twin, recipe, compiled=compiled, dtype=torch.float32)
    steps(twin, recipe, quick, range(2))
    assert len(quick.stacks) > len(plain.stacks)
    for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=2e-3, msg=name)


def test_the_choice_is_by_device_and_size(monkeypatch):
    for device, compiled in (("cuda", False), ("cuda", True), ("cpu", True)):
        chosen = fast.Steps(torch.device(device), compiled, torch.bfloat16)
        assert chosen.orthogonalize is polar_express
    taken = []
    monkeypatch.setattr(fast, "polar_express_by_halves", lambda *_: taken.append("fast"))
    monkeypatch.setattr(fast, "polar_express", lambda *_: taken.append("plain"))
    for shape in ((512, 512), (511, 4096), (4096, 511), (4096, 512)):
        fast.Steps(CPU, False, torch.bfloat16).orthogonalize(torch.empty(1, *shape), 5, 1.02, None)
    assert taken == ["fast", "plain", "plain", "fast"]
    large, small = torch.empty(512, 512), torch.empty(512, 511)
    assert fast.in_place(large, 1) and not fast.in_place(small, 1) and not fast.in_place(large, 2)


def test_a_large_matrix_is_updated_where_it_stands(monkeypatch):
    monkeypatch.setattr(fast, "LARGE_MATRIX", 1)
    recipe, model = build("run1")
    optimizer = build_optimizer(model, recipe)
    for stack in optimizer.stacks:
        assert len(stack.params) == 1
        assert stack.slices(0, stack.count).data_ptr() == stack.params[0].data_ptr()


def test_a_single_number_is_updated_without_a_compiler(monkeypatch):
    """Its kernel is refused by CUDA under torch 2.11 (recorded on an H100); two are compiled."""
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda f, **_: lambda *args: compiled.append(f))
    update = adamw_compiled()
    rest = (*adamw_scalars({"lr": 0.1, "betas": (0.8, 0.95), "weight_decay": 0.1}, 1), 1e-10)
    for size in (1, 2):
        ours, theirs = ([torch.full((size,), 0.5) for _ in range(4)] for _ in range(2))
        update(*ours, *rest)
        adamw_update(*theirs, *rest)
        assert (len(compiled), torch.equal(ours[0], theirs[0])) == ((0, True), (1, False))[size - 1]
