"""Which attention backend runs where, and why not: checked by rule, then by numbers.

``choose_backend`` walks the ranking for the machine, leaves out what cannot serve, and holds the
first that can against float64 on a small case, gradients included, before it is trusted. A backend
asked for by name serves or stops with the reason: nothing falls back in silence.
``python -m nanogpt2.kernels.backends`` says who serves here. Chapter: windows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from nanogpt2.config import GPTConfig
from nanogpt2.errors import UserError
from nanogpt2.kernels.cuda import (
    PACKAGES,
    flash_attention,
    module_of,
    varlen_attention,
    varlen_shares_heads,
)
from nanogpt2.kernels.fast.banded import BLOCK, banded_attention
from nanogpt2.kernels.operator import asked_while_tracing
from nanogpt2.kernels.portable import masked_attention
from nanogpt2.kernels.windows import plain_attention

BACKENDS: dict[str, Callable[..., Tensor]] = {
    "fa3": functools.partial(flash_attention, package="fa3"),
    "fa4": functools.partial(flash_attention, package="fa4"),
    "fa2": functools.partial(flash_attention, package="fa2"),
    "varlen": varlen_attention,
    "banded": banded_attention,
    "sdpa": masked_attention,
}
"""Every backend by name: (q_BTHD, k_BSKD, v_BSKD, window) -> (B, T, H, D)"""

GAINS = {
    "fa3": "reported to be 1.5 to 2 times as fast as FlashAttention-2 (Shah et al., 2407.08608)",
    "fa4": "made for this GPU",
}
"""what speaks for a package, against what serves without it"""
_HALF = (torch.bfloat16, torch.float16)
_TOLERANCE = 0.02  # of the Frobenius norm: bf16 errs by 0.004, a window off by one by 0.1


Queries = Literal["all", "last", "one"]
"""training (as many queries as keys), a prompt added to a cache, or one new token"""


@dataclass(frozen=True)
class Case:
    """What a choice depends on; lengths and windows only by kind, so that choices are few."""

    device: str
    dtype: torch.dtype
    head_dim: int
    n_head: int
    n_kv_head: int
    queries: Queries = "all"
    windowed: bool = True
    """some query is kept from a key before it"""
    long: bool = True
    """more than one block of queries"""

    @staticmethod
    def of(
        device: str,
        dtype: torch.dtype,
        head_dim: int,
        n_head: int,
        n_kv_head: int,
        queries: int,
        keys: int,
        window: int,
    ) -> Case:
        """The case of one call."""
        kind: Queries = "one" if queries == 1 else "all" if queries == keys else "last"
        long, windowed = queries > BLOCK, window < keys - 1
        return Case(device, dtype, head_dim, n_head, n_kv_head, kind, windowed, long)


def _capability() -> tuple[int, int]:
    return torch.cuda.get_device_capability()


def why_not(backend: str, case: Case) -> str | None:
    """The rule that keeps ``backend`` from serving ``case`` here, or None."""
    return _unsuited(backend, case) or _missing(backend)


def _unsuited(backend: str, case: Case) -> str | None:
    """What of this machine or ``case`` is not for ``backend``, whatever may be installed."""
    if backend in ("banded", "sdpa"):
        return None
    if case.device != "cuda" or torch.version.hip is not None:
        return "it needs an NVIDIA GPU"
    if case.dtype not in _HALF:
        return f"it needs bfloat16 or float16, not {str(case.dtype).removeprefix('torch.')}"
    if case.head_dim % 8 or case.head_dim > 128:
        return f"it takes head sizes that are multiples of 8 up to 128, not {case.head_dim}"
    major, minor = _capability()
    least = {"fa3": 9, "fa4": 9}.get(backend, 8)
    if major < least or (backend == "fa3" and major != 9):
        needs = {"fa3": "Hopper (compute capability 9.0)", "fa4": "Hopper or later"}
        return f"it needs {needs.get(backend, 'Ampere or later')}; this GPU is {major}.{minor}"
    if backend == "varlen" and case.n_kv_head != case.n_head and not varlen_shares_heads():
        return "this version of torch has no grouped-query attention in varlen_attn"
    return None


def _missing(backend: str) -> str | None:
    if backend not in PACKAGES or module_of(backend) is not None:
        return None
    extra = "flash-attn" if backend == "fa2" else backend
    return f"{PACKAGES[backend]} is not installed (pip install 'nanogpt2[{extra}]')"


def ranking(case: Case) -> list[str]:
    """Backends from fastest to slowest for this kind of case, able or not."""
    portable = ["banded", "sdpa"] if case.windowed and case.long else ["sdpa", "banded"]
    if case.device != "cuda" or case.queries == "one":
        return portable
    if case.windowed:
        return ["fa3", "fa4", "fa2", "varlen", *portable]
    return ["fa3", "fa4", *portable, "fa2", "varlen"]  # SDPA has cuDNN's kernels too


@functools.cache
def probe(backend: str, case: Case) -> str | None:
    """Run ``backend`` on a small case and hold it against float64; what was wrong, or None."""
    unseen = torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x)
    try:  # within a block that is recomputed, its hooks must not count these tensors
        with torch.inference_mode(False), torch.enable_grad(), unseen:
            errors = _errors(backend, case)
    except Exception as error:  # whatever a package throws is its reason
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        return f"it fails on a small case: {first_line}"
    name, worst = max(errors.items(), key=lambda item: item[1])
    return None if worst < _TOLERANCE else f"its {name} is off by {worst:.1%} on a small case"


def _errors(backend: str, case: Case) -> dict[str, float]:
    """Relative errors of the output and, where training uses it, of the gradients."""
    window = 37 if case.windowed else 10_000
    queries, keys = {"all": (300, 300), "last": (270, 300), "one": (1, 300)}[case.queries]
    heads = 2 * (case.n_head // case.n_kv_head)
    generator = torch.Generator().manual_seed(0)
    *inputs, grad = (
        torch.randn(2, *shape, case.head_dim, generator=generator).to(case.device, case.dtype)
        for shape in ((queries, heads), (keys, 2), (keys, 2), (queries, heads))
    )
    trains = case.queries == "all"
    exact = [x.cpu().double().requires_grad_(trains) for x in inputs]
    inputs = [x.requires_grad_(trains) for x in inputs]
    with torch.autocast(case.device, enabled=False):
        ours = [BACKENDS[backend](*inputs, window)]
    true = [plain_attention(exact[0], exact[1], exact[2], window)]
    if trains:
        ours += torch.autograd.grad(ours[0], inputs, grad)
        true += torch.autograd.grad(true[0], exact, grad.cpu().double())
    names = ("output", "gradient of q", "gradient of k", "gradient of v")
    return {
        name: float((a.detach().cpu().double() - b.detach()).norm() / b.detach().norm())
        for name, a, b in zip(names, ours, true, strict=False)
    }


@functools.cache
def _best(case: Case) -> str:
    for backend in ranking(case):
        if why_not(backend, case) is None and probe(backend, case) is None:
            return backend
    return "sdpa"  # the simplest of all: where it fails, its own error says why


@functools.cache
def _resolve(backend: str, case: Case) -> str:
    if backend == "auto":
        return _best(case)
    if backend not in BACKENDS:
        known = ", ".join(["auto", *BACKENDS])
        raise UserError(f"there is no attention backend {backend!r}; choose one of {known}")
    reason = why_not(backend, case) or probe(backend, case)
    if reason is not None:
        raise UserError(
            f"attention backend {backend!r} cannot run here: {reason}; "
            f"use {_best(case)!r}, which can, or 'auto'"
        )
    return backend


@asked_while_tracing
def choose_backend(backend: str, *call: Any) -> str:
    """The backend for a call (see ``Case.of``): for "auto" the best, else as named or UserError."""
    return _resolve(backend, Case.of(*call))


def announcement(config: GPTConfig, device: torch.device, dtype: torch.dtype, asked: str) -> str:
    """Who attends in training here, and what is given away against the best for this GPU.

    Raises UserError where the backend that is ``asked`` for cannot serve.
    """
    T, heads = config.sequence_len, (config.head_dim, config.n_head, config.n_kv_head)
    found, given_away = {}, ""
    for window in sorted({left for left, _ in config.window_sizes()}):
        case = Case.of(device.type, dtype, *heads, T, T, window)
        chosen = _resolve(asked, case)
        found["in windows" if case.windowed else "over everything"] = chosen
        for better in ranking(case)[: ranking(case).index(chosen)] if case.windowed else ():
            if better in GAINS and _unsuited(better, case) is None:
                reason = _missing(better) or probe(better, case) or f"{chosen} was asked for"
                given_away = f"; {better} is {GAINS[better]}, but {reason}"
                break
    names = set(found.values())
    who = names.pop() if len(names) == 1 else ", ".join(f"{n} {k}" for k, n in found.items())
    return who + given_away


@dataclass(frozen=True)
class Verdict:
    """One row of ``describe_backends``."""

    backend: str
    serves: bool
    chosen: bool
    reason: str
    """why not, or what makes it eligible"""


def describe_backends(
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    head_dim: int = 128,
    n_head: int = 6,
    n_kv_head: int | None = None,
    sequence_len: int = 2048,
    window: int = 1024,
) -> list[Verdict]:
    """Who would run training attention of this kind here, who would not, and why; best first."""
    shape = (head_dim, n_head, n_kv_head or n_head, sequence_len, sequence_len, window)
    case = Case.of(torch.device(device).type, dtype, *shape)
    ranked, rows = ranking(case), []
    for backend in [*ranked, *(name for name in BACKENDS if name not in ranked)]:
        reason = why_not(backend, case) or probe(backend, case)
        agrees = "agrees with float64 on a small case"
        rows.append(Verdict(backend, reason is None, backend == _best(case), reason or agrees))
    return rows


def main() -> None:
    """Say who serves here, and why not the others; a kernel that lies on a hub is fetched by it."""
    gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if gpu and _capability() >= (8, 0) else torch.float32
    for row in describe_backends("cuda" if gpu else "cpu", dtype):
        serves = "chosen" if row.chosen else "serves" if row.serves else "-"
        print(f"{row.backend:<8}{serves:<8}{row.reason}")


if __name__ == "__main__":
    main()
