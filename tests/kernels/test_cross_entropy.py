"""The chunked loss is the formula, gradients included, and never holds all logits."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from nanogpt2.errors import UserError
from nanogpt2.kernels import loss as room
from nanogpt2.kernels.cross_entropy import cross_entropy
from nanogpt2.kernels.fast import chunked_loss
from nanogpt2.kernels.loss import softcapped_cross_entropy
from tests.kernels.oracle import relative_error

N, C, V, PADDED = 37, 12, 50, 64


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 8 tokens, four whole ones and a rest, each in bands of 3."""
    monkeypatch.setattr(chunked_loss, "chunk_rows", lambda _: 8)
    monkeypatch.setattr(chunked_loss, "BAND", 3 * V)


def case(dtype: torch.dtype = torch.float64, size: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(N, C, generator=generator).to(dtype).requires_grad_()
    weight = (size * torch.randn(PADDED, C, generator=generator)).double().requires_grad_()
    targets = torch.randint(0, V, (N,), generator=generator)
    targets[::5] = -1
    return hidden, weight, targets


def formula(
    hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float, reduction: str
) -> Tensor:
    z = hidden.double() @ weight[:V].double().T
    z = softcap * torch.tanh(z / softcap) if softcap else z
    nats = z.exp().sum(dim=1).log() - z[torch.arange(N), targets.clamp(min=0)]
    nats = torch.where(targets == -1, 0.0, nats)
    if reduction == "none":
        return nats
    return nats.sum() if reduction == "sum" else nats.sum() / (targets != -1).sum()


FORMS = [
    *itertools.product(["plain", "chunked"], ["mean", "sum"]),
    ("plain", "none"),
    ("auto", "none"),
]
"""backend and reduction, where each token may have a gradient of its own only in the plain form"""


@pytest.mark.parametrize(("backend", "reduction"), FORMS)
@pytest.mark.parametrize("softcap", [0.0, 15.0, 80.0])
def test_loss_and_gradients_are_the_formulas(backend: str, softcap: float, reduction: str) -> None:
    hidden, weight, targets = case()
    ours = softcapped_cross_entropy(hidden, weight, targets, V, softcap, reduction, backend)
    true = formula(hidden, weight, targets, softcap, reduction)
    torch.testing.assert_close(ours, true, rtol=1e-12, atol=1e-12)
    above = torch.linspace(-1, 2, N).double() if reduction == "none" else torch.tensor(0.3).double()
    found = torch.autograd.grad(ours, (hidden, weight), above)
    wanted = torch.autograd.grad(true, (hidden, weight), above)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    assert not found[1][V:].any()  # rows of padding learn nothing
    assert not found[0][::5].any()  # nor do ignored tokens


@pytest.mark.parametrize(("backend", "reduction"), FORMS)
def test_bf16_products_with_fp32_masters(backend: str, reduction: str) -> None:
    hidden, weight, targets = case(torch.bfloat16)
    weight = weight.detach().float().requires_grad_()
    ours = softcapped_cross_entropy(hidden, weight, targets, V, 15.0, reduction, backend)
    true = formula(hidden, weight, targets, 15.0, reduction)
    assert ours.dtype == torch.float32
    assert relative_error(ours, true) < 5e-3
    found = torch.autograd.grad(ours.sum(), (hidden, weight))
    wanted = torch.autograd.grad(true.sum(), (hidden, weight))
    assert [x.dtype for x in found] == [torch.bfloat16, torch.float32]
    assert max(map(relative_error, found, wanted)) < 1e-2


@pytest.mark.parametrize("backend", ["plain", "chunked"])
def test_in_fp16_a_scaled_gradient_survives_many_tokens(backend: str) -> None:
    """A token's share of the mean is 6e-5 here, and its gradient less than fp16 can hold."""
    generator = torch.Generator().manual_seed(0)
    exact = [torch.randn(n, 8, generator=generator).double() for n in (2**14, V)]
    exact[1] *= 0.01
    targets = torch.randint(0, V, (2**14,), generator=generator)
    scale, gradients = 2.0**12, {}
    for dtype in (torch.float16, torch.float64):
        hidden = exact[0].to(dtype).requires_grad_()
        weight = exact[1].to(torch.promote_types(dtype, torch.float32)).requires_grad_()
        loss = softcapped_cross_entropy(hidden, weight, targets, V, 15.0, backend=backend)
        gradients[dtype] = torch.autograd.grad(loss, (hidden, weight), torch.full_like(loss, scale))
    for half, true in zip(gradients[torch.float16], gradients[torch.float64], strict=True):
        assert relative_error(half, true) < 0.01


@pytest.mark.parametrize("softcap", [0.0, 15.0])
def test_huge_logits_do_not_overflow(softcap: float) -> None:
    hidden, weight, targets = case(torch.float32, size=300.0)
    weight = weight.detach().float().requires_grad_()
    ours = softcapped_cross_entropy(hidden, weight, targets, V, softcap, "mean", "chunked")
    logits = hidden @ weight[:V].T
    logits = softcap * torch.tanh(logits / softcap) if softcap else logits
    torch.testing.assert_close(ours, F.cross_entropy(logits, targets, ignore_index=-1))
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(ours, (hidden, weight)))


@pytest.mark.parametrize("backend", ["auto", "plain", "chunked"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_without_gradients_the_loss_is_the_same(backend: str, reduction: str) -> None:
    hidden, weight, targets = case()
    with torch.no_grad():
        ours = softcapped_cross_entropy(hidden, weight, targets, V, 15.0, reduction, backend)
    torch.testing.assert_close(ours, formula(hidden, weight, targets, 15.0, reduction))
    assert not ours.requires_grad


@settings(max_examples=30)
@given(
    tokens=st.integers(1, 20),
    vocabulary=st.integers(1, 40),
    padding=st.integers(0, 5),
    softcap=st.sampled_from([0.0, 2.0, 15.0, 80.0]),
    seed=st.integers(0, 2**31),
)
def test_chunks_and_definition_agree_whatever_the_shape(
    tokens: int, vocabulary: int, padding: int, softcap: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden = (4 * torch.randn(tokens, 3, generator=generator)).double().requires_grad_()
    weight = torch.randn(vocabulary + padding, 3, generator=generator).double().requires_grad_()
    targets = torch.randint(-1, vocabulary, (tokens,), generator=generator)
    targets[0] = 0  # the mean over no tokens at all is not a number
    forms = [
        softcapped_cross_entropy(hidden, weight, targets, vocabulary, softcap, "mean", backend)
        for backend in ("chunked", "plain")
    ]
    torch.testing.assert_close(forms[0], forms[1])
    chunked, plain = (torch.autograd.grad(form, (hidden, weight)) for form in forms)
    torch.testing.assert_close(chunked, plain)


def test_the_definition_on_logits_is_the_formula() -> None:
    hidden, weight, targets = case()
    for softcap, reduction in itertools.product([0.0, 15.0], ["mean", "sum", "none"]):
        ours = cross_entropy(hidden @ weight[:V].T, targets, softcap, reduction)
        torch.testing.assert_close(ours, formula(hidden, weight, targets, softcap, reduction))


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation returns."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


def test_no_table_of_tokens_by_vocabulary_is_ever_made() -> None:
    hidden, weight, targets = (x.detach() for x in case())
    with Largest() as seen:
        chunked_loss._chunked._init_fn(hidden, weight[:V], targets, 15.0, True, True)
    assert seen.numel == max(8 * V, V * C)  # one chunk's logits, or the weight: under N x V
    assert seen.numel < N * V


@pytest.mark.parametrize(("backend", "reduction"), [*FORMS, ("auto", "mean")])
def test_one_graph_under_torch_compile(backend: str, reduction: str) -> None:
    hidden, weight, targets = case()
    args = (hidden, weight, targets, V, 15.0, reduction, backend)
    run = torch.compile(
        softcapped_cross_entropy, dynamic=False, fullgraph=True, backend="aot_eager"
    )
    compiled, eager = run(*args), softcapped_cross_entropy(*args)
    torch.testing.assert_close(compiled, eager)
    found = torch.autograd.grad(compiled.sum(), (hidden, weight))
    wanted = torch.autograd.grad(eager.sum(), (hidden, weight))
    torch.testing.assert_close(found, wanted)


def test_the_operators_are_well_formed() -> None:
    hidden, weight, targets = case()
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    for learns in (True, False):
        torch.library.opcheck(
            torch.ops.nanogpt2.chunked_loss.default,
            (hidden, weight[:V], targets, 15.0, True, learns),
            test_utils=checks,
        )


def test_a_gpu_takes_the_plain_form_where_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_first_free", lambda _: 80 * 2**30)

    def choose(tokens: int, device: str = "cuda", dtype: torch.dtype = torch.bfloat16) -> str:
        with FakeTensorMode():
            hidden = torch.empty(tokens, 768, dtype=dtype, device=device)
            head = torch.empty(32768, 768, device=device)
            return room._choose(hidden, head, "mean", True)

    assert choose(32768) == "plain"  # 15 GB
    assert choose(131072) == "chunked"  # 60 GB
    assert choose(32768, dtype=torch.float32) == "chunked"
    assert choose(32768, device="cpu") == "chunked"


def test_compiled_and_eager_runs_choose_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[str] = []
    real = room._choose
    monkeypatch.setattr(room, "_choose", lambda *a: (chosen.append(real(*a)), chosen[-1])[1])
    hidden, weight, targets = case(torch.bfloat16)
    softcapped_cross_entropy(hidden, weight, targets, V, 15.0)
    run = torch.compile(softcapped_cross_entropy, dynamic=False, backend="aot_eager")
    run(hidden, weight, targets, V, 15.0)
    assert chosen == ["chunked", "chunked"]


def test_mistakes_are_named() -> None:
    hidden, weight, targets = case()
    with pytest.raises(UserError, match="no reduction 'max'; choose one of mean, sum, none"):
        softcapped_cross_entropy(hidden, weight, targets, V, 15.0, "max")
    with pytest.raises(UserError, match="no loss backend 'fast'"):
        softcapped_cross_entropy(hidden, weight, targets, V, 15.0, "mean", "fast")
    with pytest.raises(UserError, match="no gradients of single tokens; choose the backend plain"):
        softcapped_cross_entropy(hidden, weight, targets, V, 15.0, "none", "chunked")


@pytest.mark.cuda
@pytest.mark.parametrize("backend", ["plain", "chunked"])
def test_on_the_gpu_in_bf16(backend: str) -> None:
    hidden, weight, targets = (x.detach().cuda() for x in case(torch.bfloat16))
    hidden, weight = hidden.requires_grad_(), weight.float().requires_grad_()
    ours = softcapped_cross_entropy(hidden, weight, targets, V, 15.0, "mean", backend)
    true = formula(hidden.cpu(), weight.cpu(), targets.cpu(), 15.0, "mean")
    assert relative_error(ours, true) < 5e-3
    found = torch.autograd.grad(ours, (hidden, weight))
    wanted = torch.autograd.grad(true, (hidden, weight))
    assert max(map(relative_error, found, wanted)) < 1e-2
