"""The chunked loss is the formula, gradients included, and never holds all logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nanogpt2.errors import UserError
from nanogpt2.kernels import cross_entropy
from nanogpt2.kernels.cross_entropy import softcapped_cross_entropy
from tests.kernels.oracle import relative_error

N, C, V, PADDED = 37, 12, 50, 64


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 8 tokens: four whole ones and a rest."""
    monkeypatch.setattr(cross_entropy, "chunk_rows", lambda _: 8)


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


@pytest.mark.parametrize("backend", ["naive", "chunked"])
@pytest.mark.parametrize("softcap", [0.0, 15.0, 80.0])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
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


@pytest.mark.parametrize("backend", ["naive", "chunked"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
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


@pytest.mark.parametrize("softcap", [0.0, 15.0])
def test_huge_logits_do_not_overflow(softcap: float) -> None:
    hidden, weight, targets = case(torch.float32, size=300.0)
    weight = weight.detach().float().requires_grad_()
    ours = softcapped_cross_entropy(hidden, weight, targets, V, softcap, "mean", "chunked")
    logits = hidden @ weight[:V].T
    logits = softcap * torch.tanh(logits / softcap) if softcap else logits
    torch.testing.assert_close(ours, F.cross_entropy(logits, targets, ignore_index=-1))
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(ours, (hidden, weight)))


def test_without_gradients_the_loss_is_the_same() -> None:
    hidden, weight, targets = case()
    with torch.no_grad():
        ours = softcapped_cross_entropy(hidden, weight, targets, V, 15.0)
    torch.testing.assert_close(ours, formula(hidden, weight, targets, 15.0, "mean"))
    assert not ours.requires_grad


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
    grads = torch.full((N,), 1 / N).double()
    with Largest() as seen:
        cross_entropy._sweep(hidden, weight, targets, grads, V, 15.0)
    assert seen.numel == max(8 * V, PADDED * C)  # one chunk's logits, or the weight: under N x V
    assert seen.numel < N * V


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("backend", ["auto", "chunked", "naive"])
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
    share = torch.tensor(0.1).double()
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    ops = torch.ops.nanogpt2
    for op, args in (
        (ops.total_loss.default, (hidden, weight, targets, share, V, 15.0)),
        (ops.token_losses.default, (hidden, weight, targets, V, 15.0)),
    ):
        torch.library.opcheck(op, args, test_utils=checks)


def test_compiled_bf16_takes_the_naive_form_where_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = torch.zeros(64, C, dtype=torch.bfloat16)
    assert cross_entropy._choose(hidden, V) == "chunked"  # eager
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert cross_entropy._choose(hidden, V) == "naive"
    assert cross_entropy._choose(hidden.float(), V) == "chunked"
    assert cross_entropy._choose(hidden, 10**13) == "chunked"  # 9 petabytes


def test_mistakes_are_named() -> None:
    hidden, weight, targets = case()
    with pytest.raises(UserError, match="no reduction 'max'; choose one of mean, sum, none"):
        softcapped_cross_entropy(hidden, weight, targets, V, 15.0, "max")
    with pytest.raises(UserError, match="no loss backend 'fast'"):
        softcapped_cross_entropy(hidden, weight, targets, V, 15.0, "mean", "fast")


@pytest.mark.cuda
@pytest.mark.parametrize("backend", ["naive", "chunked"])
def test_on_the_gpu_in_bf16(backend: str) -> None:
    hidden, weight, targets = (x.detach().cuda() for x in case(torch.bfloat16))
    hidden, weight = hidden.requires_grad_(), weight.float().requires_grad_()
    ours = softcapped_cross_entropy(hidden, weight, targets, V, 15.0, "mean", backend)
    true = formula(hidden.cpu(), weight.cpu(), targets.cpu(), 15.0, "mean")
    assert relative_error(ours, true) < 5e-3
    found = torch.autograd.grad(ours, (hidden, weight))
    wanted = torch.autograd.grad(true, (hidden, weight))
    assert max(map(relative_error, found, wanted)) < 1e-2
