"""The FlashAttention packages behind one custom op: FA2 (Ampere on), FA3 (Hopper), FA4 (Hopper on).

Each package names its arguments in its own way and gets them translated here; what torch.compile
sees is ``nanogpt2::flash_forward`` and ``nanogpt2::flash_backward``. Sources: Dao et al.
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
_HUB_FA3 = "kernels-community/flash-attn3"


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
        hub = module.get_kernel(_HUB_FA3)
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


def _band(package: str, window: int, keys: int) -> dict[str, Any]:
    """The window in the package's words; a window over everything must be said as plain causal."""
    unlimited = None if package == "fa4" else -1
    everything = window >= keys - 1
    left = unlimited if everything else window
    right = unlimited if everything and package == "fa4" else 0
    return {
        "causal": True,
        "is_causal": True,
        "window_size_left": left,
        "window_size_right": right,
        "window_size": (left, right),
        "softcap": 0.0,
        "deterministic": False,
    }


@torch.library.custom_op("nanogpt2::flash_forward", mutates_args=())
def flash_forward(
    q: Tensor, k: Tensor, v: Tensor, window: int, scale: float, package: str
) -> tuple[Tensor, Tensor]:
    """q (B, Tq, H, D), k and v (B, Tk, K, D) -> output like q, log-sum-exp (B, H, Tq) fp32."""
    module = _load(package)
    arguments = {
        "q": q,
        "k": k,
        "v": v,
        "softmax_scale": scale,
        **_band(package, window, k.shape[1]),
    }
    if package == "fa4":
        out, lse, *_ = _call(module._flash_attn_fwd, {**arguments, "return_lse": True})
    elif package == "fa3":
        out, lse, *_ = _call(module._flash_attn_forward, arguments)
    else:
        extra = {"dropout_p": 0.0, "return_softmax": False}
        out, lse, *_ = _call(module._flash_attn_forward, {**arguments, **extra})
    return out, lse


@torch.library.custom_op("nanogpt2::flash_backward", mutates_args=())
def flash_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    window: int,
    scale: float,
    package: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    module = _load(package)
    arguments = {
        **{"dout": grad.contiguous(), "q": q, "k": k, "v": v, "out": out},
        **{"softmax_scale": scale, **_band(package, window, k.shape[1])},
    }
    if package == "fa4":
        dq, dk, dv, *_ = _call(module._flash_attn_bwd, {**arguments, "lse": lse})
        return dq, dk, dv
    dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
    arguments.update(dq=dq, dk=dk, dv=dv, softmax_lse=lse)
    if package == "fa2":
        arguments["dropout_p"] = 0.0
    _call(module._flash_attn_backward, arguments)
    return dq, dk, dv


@flash_forward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, window: int, scale: float, package: str
) -> tuple[Tensor, Tensor]:
    B, T, H, _ = q.shape
    return q.new_empty(q.shape), q.new_empty((B, H, T), dtype=torch.float32)


@flash_backward.register_fake
def _(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    window: int,
    scale: float,
    package: str,
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, ctx.window, ctx.scale, ctx.package = inputs
    ctx.save_for_backward(q, k, v, *output)


def _differentiate(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    grads = flash_backward(grad, *ctx.saved_tensors, ctx.window, ctx.scale, ctx.package)
    return *grads, None, None, None


flash_forward.register_autograd(_differentiate, setup_context=_save)


def flash_attention(
    q_BTHD: Tensor,
    k_BTKD: Tensor,
    v_BTKD: Tensor,
    window: int,
    scale: float | None,
    package: str,
) -> Tensor:
    """Causal attention over a sliding window by one of ``PACKAGES``; (B, T, H, D)."""
    q, k, v = (x.contiguous() for x in (q_BTHD, k_BTKD, v_BTKD))
    scale = q.shape[3] ** -0.5 if scale is None else scale
    return flash_forward(q, k, v, window, scale, package)[0]
