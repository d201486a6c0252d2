"""FlashAttention on NVIDIA GPUs: the packages fa2, fa3 and fa4, and torch's own ``varlen_attn``.

Each package names its arguments in its own way and gets them translated here. Sources: Dao et al.
(arXiv 2205.14135), FlashAttention-2 (2307.08691), FlashAttention-3 (2407.08608). Chapter: windows.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from nanogpt2.kernels.operator import KERNELS, windowed_forward

PACKAGES = {
    "fa2": "flash-attn>=2.8.3,<3",
    "fa3": "kernels (or FlashAttention's hopper build)",
    "fa4": "flash-attn-4>=4.0.0b30,<5",
}
_MODULES = {
    "fa2": ("flash_attn.flash_attn_interface",),
    "fa3": ("flash_attn_interface", "flash_attn_3.flash_attn_interface", "kernels"),
    "fa4": ("flash_attn.cute.interface",),
}
_HUB_FA3 = {"repo_id": "kernels-community/flash-attn3", "version": 1}
"""builds of one version keep its interface; numbers are probed all the same, before it is used"""


def module_of(package: str) -> str | None:
    """The first module through which ``package`` can be had here, without importing it."""
    for name in _MODULES[package]:
        try:
            if importlib.util.find_spec(name) is not None:
                return name
        except (ImportError, ValueError):
            continue
    return None


@functools.cache
def _load(package: str) -> ModuleType:
    name = module_of(package)
    if name is None:
        raise ImportError(f"{PACKAGES[package]} is not installed")
    module: Any = importlib.import_module(name)
    if name == "kernels":
        hub = module.get_kernel(**_HUB_FA3)
        module = getattr(hub, "flash_attn_interface", hub)
    return module


def _call(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call with those of ``arguments`` that this version knows, and None for what it insists on."""
    schema = getattr(getattr(function, "_opoverload", None), "_schema", None)
    if schema is not None:
        known = {a.name: a.has_default_value() for a in schema.arguments}
    else:
        parameters = inspect.signature(function).parameters.values()
        known = {p.name: p.default is not p.empty for p in parameters}
    given = {name: value for name, value in arguments.items() if name in known}
    missing = {name: None for name, optional in known.items() if not optional}
    return function(**{**missing, **given})


def _settings(package: str, window: int, k: Tensor) -> dict[str, Any]:
    """The window in the package's words; a window over everything must be said as plain causal."""
    unlimited = None if package == "fa4" else -1
    everything = window >= k.shape[1] - 1
    left = unlimited if everything else window
    right = unlimited if everything and package == "fa4" else 0
    return {
        "softmax_scale": k.shape[3] ** -0.5,
        "causal": True,
        "is_causal": True,
        "window_size_left": left,
        "window_size_right": right,
        "window_size": (left, right),
        "softcap": 0.0,
        "dropout_p": 0.0,
        "deterministic": False,
    }


def _forward(package: str, q: Tensor, k: Tensor, v: Tensor, window: int) -> tuple[Tensor, Tensor]:
    module = _load(package)
    given = {"q": q, "k": k, "v": v, **_settings(package, window, k)}
    function = module._flash_attn_fwd if package == "fa4" else module._flash_attn_forward
    out, lse, *_ = _call(function, {**given, "return_lse": True, "return_softmax": False})
    return out, lse


def _backward(
    package: str,
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    window: int,
) -> tuple[Tensor, Tensor, Tensor]:
    module = _load(package)
    given = {"q": q, "k": k, "v": v, "out": out, **_settings(package, window, k)}
    given["dout"] = grad.contiguous()
    if package == "fa4":
        dq, dk, dv, *_ = _call(module._flash_attn_bwd, {**given, "lse": lse})
        return dq, dk, dv
    dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
    _call(module._flash_attn_backward, {**given, "dq": dq, "dk": dk, "dv": dv, "softmax_lse": lse})
    return dq, dk, dv


for _name in PACKAGES:
    KERNELS[_name] = (functools.partial(_forward, _name), functools.partial(_backward, _name))


def flash_attention(
    q_BTHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, window: int, package: str
) -> Tensor:
    """Causal attention over a sliding window by one of ``PACKAGES``; (B, T, H, D)."""
    q, k, v = (x.contiguous() for x in (q_BTHD, k_BSKD, v_BSKD))
    return windowed_forward(q, k, v, window, package)[0]


@functools.cache
def varlen_shares_heads() -> bool:
    """Whether this torch's varlen_attn takes fewer key heads than query heads."""
    from torch.nn.attention.varlen import varlen_attn

    return "enable_gqa" in inspect.signature(varlen_attn).parameters


def varlen_attention(q_BTHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, window: int) -> Tensor:
    """FlashAttention-2 over the batch as one ragged sequence, (B T, H, D): a view of our layout."""
    from torch.nn.attention.varlen import varlen_attn

    (B, T, H, _), (_, S, K, _) = q_BTHD.shape, k_BSKD.shape
    starts = torch.arange(B + 1, dtype=torch.int32, device=q_BTHD.device)
    shared: dict[str, Any] = {} if H == K else {"enable_gqa": True}
    attend: Any = varlen_attn
    out = attend(
        *(x.flatten(0, 1) for x in (q_BTHD, k_BSKD, v_BSKD)),
        *(starts * T, starts * S, T, S),
        window_size=(-1 if window >= S - 1 else window, 0),
        **shared,
    )
    return out.unflatten(0, (B, T))
