"""Which backend is chosen, why the others are not, and how foreign packages are called."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, get_args, get_type_hints

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from nanogpt2.config import GPTConfig
from nanogpt2.errors import UserError
from nanogpt2.kernels import backends, cuda
from nanogpt2.kernels.attention import attention
from nanogpt2.kernels.backends import Case, announcement, choose_backend, describe_backends
from nanogpt2.kernels.windows import window_mask
from nanogpt2.run import Loop
from tests.kernels.oracle import definition, inputs


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Choices and probes are remembered; each test starts and ends without."""
    remembered = (backends.probe, backends._best, backends._resolve)
    for memory in remembered:
        memory.cache_clear()
    yield
    for memory in remembered:
        memory.cache_clear()


def gpu_case(**changes: Any) -> Case:
    given = {"device": "cuda", "dtype": torch.bfloat16, "head_dim": 128, "n_head": 6}
    return Case(**{**given, "n_kv_head": 6, **changes})


def choose(backend: str, queries: int, keys: int, window: int) -> str:
    return choose_backend(backend, "cpu", torch.float32, 64, 4, 4, queries, keys, window)


def test_on_cpu_windows_go_to_bands_and_the_rest_to_sdpa() -> None:
    assert choose("auto", 2048, 2048, 1024) == "banded"
    assert choose("auto", 2048, 2048, 2048) == "sdpa"
    assert choose("auto", 2048, 2048, 2047) == "sdpa"  # the first key is seen by the last query
    assert choose("auto", 200, 200, 100) == "sdpa"  # a single block
    assert choose("auto", 1, 2048, 1024) == "sdpa"
    assert choose("auto", 512, 2048, 1024) == "banded"


def test_a_backend_asked_for_serves_or_says_why_not_and_what_would() -> None:
    assert choose("sdpa", 2048, 2048, 1024) == "sdpa"
    with pytest.raises(UserError, match=r"'fa3' cannot run here: .*; use 'banded', which can"):
        choose("fa3", 2048, 2048, 1024)


def test_a_backend_that_disagrees_with_float64_is_not_trusted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = backends.BACKENDS["banded"]

    def one_key_short(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        return real(q, k, v, window - 1)

    monkeypatch.setitem(backends.BACKENDS, "banded", one_key_short)
    assert choose("auto", 2048, 2048, 1024) == "sdpa"
    with pytest.raises(UserError, match="its .* is off by .*; use 'sdpa'"):
        choose("banded", 2048, 2048, 1024)


def test_a_backend_with_wrong_gradients_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    real = backends.BACKENDS["banded"]

    def frozen_keys(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        return real(q, k.detach() + 0 * k, v, window)

    monkeypatch.setitem(backends.BACKENDS, "banded", frozen_keys)
    with pytest.raises(UserError, match="its gradient of k is off by 100.0%"):
        choose("banded", 2048, 2048, 1024)


def test_a_backend_that_throws_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Tensor:
        raise RuntimeError("no kernel image\nand more")

    monkeypatch.setitem(backends.BACKENDS, "banded", broken)
    assert choose("auto", 2048, 2048, 1024) == "sdpa"
    with pytest.raises(UserError, match="small case: no kernel image; use"):
        choose("banded", 2048, 2048, 1024)


def test_the_probe_leaves_random_numbers_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    choose("auto", 2048, 2048, 1024)
    assert torch.equal(torch.rand(2), expected)


def test_descriptions_name_one_chosen_backend_and_every_reason() -> None:
    rows = describe_backends("cpu", torch.bfloat16, 64, 4)
    assert sorted(row.backend for row in rows) == sorted(backends.BACKENDS)
    assert [row.backend for row in rows if row.chosen] == ["banded"]
    assert all(row.reason for row in rows)


@pytest.mark.parametrize(
    ("backend", "capability", "changes", "reason"),
    [
        ("fa3", (8, 0), {}, "Hopper .*; this GPU is 8.0"),
        ("fa3", (10, 0), {}, "Hopper .*; this GPU is 10.0"),
        ("fa4", (8, 9), {}, "Hopper or later; this GPU is 8.9"),
        ("fa2", (7, 5), {}, "Ampere or later; this GPU is 7.5"),
        ("varlen", (7, 5), {}, "Ampere or later"),
        ("varlen", (9, 0), {"dtype": torch.float32}, "bfloat16 or float16, not float32"),
        ("fa4", (9, 0), {"head_dim": 256}, "up to 128, not 256"),
        ("fa2", (9, 0), {"head_dim": 100}, "multiples of 8 up to 128, not 100"),
        ("varlen", (9, 0), {}, None),
        ("varlen", (8, 0), {"n_kv_head": 2}, None),
        ("banded", (7, 5), {}, None),
    ],
)
def test_rules_for_gpus(
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    capability: tuple[int, int],
    changes: dict[str, Any],
    reason: str | None,
) -> None:
    monkeypatch.setattr(backends, "_capability", lambda: capability)
    monkeypatch.setattr(backends, "varlen_shares_heads", lambda: True)
    found = backends.why_not(backend, gpu_case(**changes))
    if reason is None:
        assert found is None
    else:
        assert found is not None
        with pytest.raises(AssertionError, match=reason):
            raise AssertionError(found)


@pytest.mark.parametrize("backend", ["fa2", "fa3", "fa4"])
def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setattr(backends, "_capability", lambda: (9, 0))
    monkeypatch.setattr(backends, "module_of", lambda _: None)
    reason = backends.why_not(backend, gpu_case())
    assert reason is not None and "not installed (pip install 'nanogpt2[" in reason


def test_the_best_kernel_at_hand_is_taken_on_hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"fa4"}
    monkeypatch.setattr(backends, "_capability", lambda: (9, 0))
    monkeypatch.setattr(backends, "module_of", lambda name: name if name in installed else None)
    monkeypatch.setattr(backends, "probe", lambda *_: None)
    assert backends._best(gpu_case()) == "fa4"
    installed.add("fa3")
    backends._best.cache_clear()
    assert backends._best(gpu_case()) == "fa3"
    installed.clear()
    backends._best.cache_clear()
    assert backends._best(gpu_case()) == "varlen"
    assert backends._best(gpu_case(windowed=False)) == "sdpa"
    assert backends._best(gpu_case(dtype=torch.float32)) == "banded"


@pytest.mark.parametrize(
    ("capability", "installed", "asked", "said"),
    [
        ((9, 0), {"fa3"}, "auto", "fa3"),
        ((9, 0), set(), "auto", r"varlen in windows, sdpa .*; fa3 is .* 1.5 to 2 .*not installed"),
        ((9, 0), {"fa3"}, "varlen", r"varlen; fa3 is reported .*, but varlen was asked for"),
        ((10, 0), set(), "auto", r"varlen in .*; fa4 is made for this GPU, but .*not installed"),
        ((8, 9), set(), "auto", r"varlen in windows, sdpa over everything"),
        ((7, 5), set(), "auto", r"banded in windows, sdpa over everything"),
    ],
)
def test_a_run_says_who_attends_and_what_is_given_away(
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int],
    installed: set[str],
    asked: str,
    said: str,
) -> None:
    monkeypatch.setattr(backends, "_capability", lambda: capability)
    monkeypatch.setattr(backends, "module_of", lambda name: name if name in installed else None)
    monkeypatch.setattr(backends, "varlen_shares_heads", lambda: True)
    monkeypatch.setattr(backends, "probe", lambda *_: None)
    text = announcement(GPTConfig(), torch.device("cuda"), torch.bfloat16, asked)
    assert re.match(said, text)
    assert ("; " in text) == ("; " in said), "nothing is given away where nothing is better"


def test_every_backend_can_be_asked_for_by_a_run() -> None:
    assert set(get_args(get_type_hints(Loop)["attention_backend"])) == {"auto", *backends.BACKENDS}


def test_the_hub_is_asked_for_one_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one the package refuses, and what is newest there may change from day to day."""

    def get_kernel(repo_id: str, *, revision: str | None = None, version: int | None = None) -> Any:
        assert (revision is None) != (version is None), "Either version or revision must be given"
        return SimpleNamespace(flash_attn_interface=(repo_id, version))

    monkeypatch.setitem(sys.modules, "kernels", SimpleNamespace(get_kernel=get_kernel))
    monkeypatch.setattr(cuda, "module_of", lambda _: "kernels")
    cuda._load.cache_clear()
    assert cuda._load("fa3") == ("kernels-community/flash-attn3", 1)
    cuda._load.cache_clear()


# Foreign packages, as their interfaces are documented: -1 or None for unlimited, bottom right
# alignment, gradients into buffers (FA2, FA3) or returned (FA4).


def _left(window: Any) -> int:
    return 10**6 if window in (None, -1) else window


def _gradients(dout: Tensor, q: Tensor, k: Tensor, v: Tensor, left: int, scale: float) -> Any:
    """By the chain rule, as autograd does not record inside an operator."""
    shared = q.shape[2] // k.shape[2]
    keys, values = (x.repeat_interleave(shared, dim=2) for x in (k, v))
    hidden = ~window_mask(q.shape[1], k.shape[1], left)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, keys) * scale
    weights = scores.masked_fill(hidden, float("-inf")).softmax(dim=-1)
    d_weights = torch.einsum("bqhd,bkhd->bhqk", dout, values)
    d_scores = weights * (d_weights - (weights * d_weights).sum(-1, keepdim=True)) * scale
    dq = torch.einsum("bhqk,bkhd->bqhd", d_scores, keys)
    dk = torch.einsum("bhqk,bqhd->bkhd", d_scores, q)
    dv = torch.einsum("bhqk,bqhd->bkhd", weights, dout)
    return dq, *(x.unflatten(2, (-1, shared)).sum(3) for x in (dk, dv))


def _forward(q: Tensor, k: Tensor, v: Tensor, left: int, scale: float) -> tuple[Tensor, Tensor]:
    return definition(q, k, v, left, scale).detach(), q.new_zeros(q.shape[0], q.shape[2], len(q[0]))


class FA2:
    @staticmethod
    def _flash_attn_forward(
        q, k, v, dropout_p, softmax_scale, causal, window_size_left, window_size_right, softcap,
        alibi_slopes, return_softmax,
    ):  # fmt: skip
        assert (dropout_p, causal, softcap, alibi_slopes, return_softmax) == (0, True, 0, None, 0)
        out, lse = _forward(q, k, v, _left(window_size_left), softmax_scale)
        return out, lse, None, None

    @staticmethod
    def _flash_attn_backward(
        dout, q, k, v, out, softmax_lse, dq, dk, dv, dropout_p, softmax_scale, causal,
        window_size_left, window_size_right, softcap, alibi_slopes, deterministic, rng_state=None,
    ):  # fmt: skip
        assert (dropout_p, causal, deterministic) == (0, True, False)
        grads = _gradients(dout, q, k, v, _left(window_size_left), softmax_scale)
        for buffer, grad in zip((dq, dk, dv), grads, strict=True):
            buffer.copy_(grad)


class FA3:
    @staticmethod
    def _flash_attn_forward(
        q, k, v, k_new, v_new, qv, out, cu_seqlens_q, cu_seqlens_k, softmax_scale, causal,
        window_size=(-1, -1), softcap=0.0, num_splits=1,
    ):  # fmt: skip
        assert (k_new, out, cu_seqlens_q, causal, num_splits) == (None, None, None, True, 1)
        assert window_size[1] == 0
        out, lse = _forward(q, k, v, _left(window_size[0]), softmax_scale)
        return out, lse, None, None

    @staticmethod
    def _flash_attn_backward(
        dout, q, k, v, out, softmax_lse, cu_seqlens_q=None, dq=None, dk=None, dv=None,
        softmax_scale=None, is_causal=False, window_size_left=-1, window_size_right=-1,
    ):  # fmt: skip
        assert is_causal
        grads = _gradients(dout, q, k, v, _left(window_size_left), softmax_scale)
        for buffer, grad in zip((dq, dk, dv), grads, strict=True):
            buffer.copy_(grad)


class FA4:
    @staticmethod
    def _flash_attn_fwd(
        q, k, v, softmax_scale=None, causal=False, window_size_left=None, window_size_right=None,
        return_lse=False,
    ):  # fmt: skip
        # Unlimited is None on both sides, and a window that limits nothing must be said so.
        assert causal and return_lse
        assert (window_size_left is None) == (window_size_right is None)
        assert window_size_left is None or 0 <= window_size_left < k.shape[1] - 1
        return *_forward(q, k, v, _left(window_size_left), softmax_scale), None, None, None

    @staticmethod
    def _flash_attn_bwd(
        q, k, v, out, dout, lse, softmax_scale=None, causal=False, softcap=0.0,
        window_size_left=None, window_size_right=None,
    ):  # fmt: skip
        assert causal
        return _gradients(dout, q, k, v, _left(window_size_left), softmax_scale)


@pytest.mark.parametrize("package", ["fa2", "fa3", "fa4"])
@pytest.mark.parametrize("lengths", [(9, 9), (4, 9)])
def test_packages_are_called_in_their_own_words(
    monkeypatch: pytest.MonkeyPatch, package: str, lengths: tuple[int, int]
) -> None:
    interface = {"fa2": FA2, "fa3": FA3, "fa4": FA4}[package]
    monkeypatch.setattr(cuda, "_load", lambda _: interface)
    for window in (0, 1, 4, 8, 9, 50):
        q, k, v, grad = inputs(*lengths)
        ours = cuda.flash_attention(q, k, v, window, package)
        true = definition(q, k, v, window)
        torch.testing.assert_close(ours, true, rtol=0, atol=1e-12)
        found = torch.autograd.grad(ours, (q, k, v), grad)
        wanted = torch.autograd.grad(true, (q, k, v), grad)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_packages_stay_opaque_to_torch_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_load", lambda _: FA4)
    q, k, v, grad = inputs(9, 9)
    run = torch.compile(
        lambda q, k, v: cuda.flash_attention(q, k, v, 4, "fa4") * 2,
        dynamic=False,
        fullgraph=True,
        backend="aot_eager",
    )
    found = torch.autograd.grad(run(q, k, v), (q, k, v), grad)
    wanted = torch.autograd.grad(2 * definition(q, k, v, 4), (q, k, v), grad)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
def test_varlen_gets_the_batch_as_one_ragged_sequence(
    monkeypatch: pytest.MonkeyPatch, heads: tuple[int, int]
) -> None:
    from torch.nn.attention import varlen

    def ragged(
        query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, window_size, enable_gqa=False
    ):
        assert enable_gqa == (heads[0] != heads[1]) and window_size[1] == 0
        assert cu_seq_q.dtype == torch.int32
        rows = []
        for row in range(len(cu_seq_q) - 1):
            at = slice(cu_seq_q[row], cu_seq_q[row + 1])
            seen = slice(cu_seq_k[row], cu_seq_k[row + 1])
            qkv = (query[None, at], key[None, seen], value[None, seen])
            rows.append(definition(*qkv, _left(window_size[0]))[0])
        return torch.cat(rows)

    monkeypatch.setattr(varlen, "varlen_attn", ragged)
    for lengths in ((9, 9), (4, 9)):
        for window in (0, 1, 4, 8, 50):
            q, k, v, _ = inputs(*lengths, heads)
            ours = cuda.varlen_attention(q, k, v, window)
            torch.testing.assert_close(ours, definition(q, k, v, window), rtol=0, atol=1e-12)


def test_varlen_is_called_as_this_torch_declares_it() -> None:
    with FakeTensorMode():
        q = torch.empty(2, 64, 4, 64, dtype=torch.bfloat16, device="cuda")
        assert cuda.varlen_attention(q, q, q, 16).shape == q.shape


CROSS_COMPILE = """
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from nanogpt2.kernels import cuda
with FakeTensorMode():
    q = torch.empty(1, 256, 2, 128, dtype=torch.bfloat16, device="cuda")
    for window in (64, 256):
        out, lse = cuda._forward("fa4", q, q, q, window)
        cuda._backward("fa4", out, q, q, q, out, lse, window)
print("compiled", out.shape)
"""


def test_fa4_compiles_for_hopper_without_a_gpu() -> None:
    for needed in ("cutlass", "quack", "triton", "flash_attn"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"flash-attn-4 with all it needs (0.4 GB) is not installed: no {needed}")
    target = {"FLASH_ATTENTION_ARCH": "sm_90a", "CUTE_DSL_ARCH": "sm_90a"}
    result = subprocess.run(
        [sys.executable, "-c", CROSS_COMPILE],
        env={**os.environ, **target, "FLASH_ATTENTION_NUM_SMS": "132"},
        capture_output=True,
        text=True,
    )
    assert "compiled torch.Size([1, 256, 2, 128])" in result.stdout, result.stderr


def test_the_chosen_backend_is_the_one_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = SimpleNamespace(count=0)
    real = backends.BACKENDS["banded"]

    def counting(*args: Any, **kwargs: Any) -> Tensor:
        calls.count += 1
        return real(*args, **kwargs)

    monkeypatch.setitem(backends.BACKENDS, "banded", counting)
    q, k, v, _ = inputs(300, 300, dtype=torch.float32, batch=1)
    attention(q, k, v, 100)
    probing = calls.count
    attention(q, k, v, 100)
    attention(q, k, v, 100, "sdpa")
    assert calls.count == probing + 1
