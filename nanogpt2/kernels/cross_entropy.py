"""Cross-entropy over softcapped logits, without ever holding (tokens x vocabulary) in fp32.

The naive form keeps several such tables for the backward pass: at 32,768 tokens and a vocabulary
of 32,768 each is 4.3 GB. The chunked form takes a few hundred tokens at a time, and while it has
their logits it makes their gradients too, so nothing of that size outlives its chunk. Sources: Cut
Your Losses (Wijmans et al., arXiv 2411.09009), Liger Kernel (Hsu et al., 2410.10989); the softcap
is Gemma 2's (2408.00118). Chapter: speedrun.
"""

from __future__ import annotations

from typing import Any

import psutil
import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt2.errors import UserError
from nanogpt2.kernels.tracing import asked_while_tracing

IGNORE = -1
"""Targets with this value count for nothing."""
BACKENDS = ("auto", "naive", "chunked")
REDUCTIONS = ("mean", "sum", "none")

_CHUNK_ELEMENTS = 2**24
_BAND_ELEMENTS = 2**18
_NAIVE_BYTES = 14
"""Per logit, compiled: bf16 logits and gradient, and fp32 softcapped logits with room beside."""
_FREE_SHARE = 0.4
_SAFE_EXPONENT = 50.0
"""exp of this, summed over any vocabulary, is far from overflowing fp32."""


def softcap_logits(logits: Tensor, softcap: float) -> Tensor:
    """c tanh(z / c) (Gemma 2, arXiv 2408.00118); 0 leaves the logits as they are."""
    return softcap * torch.tanh(logits / softcap) if softcap else logits


def softcapped_cross_entropy(
    hidden_NC: Tensor,
    weight_VC: Tensor,
    targets_N: Tensor,
    vocab_size: int,
    softcap: float,
    reduction: str = "mean",
    backend: str = "auto",
) -> Tensor:
    """Loss in nats of ``targets_N`` under the logits ``hidden @ weight.T``, softcapped.

    Args:
        hidden_NC: hidden states; their dtype is that of the products, the rest is fp32.
        weight_VC: the head, at least ``vocab_size`` rows (further ones are padding, outside the
            softmax); any precision, cast to that of the hidden states.
        targets_N: the right tokens; -1 is ignored.
        vocab_size: classes of the softmax.
        softcap: c of c tanh(z / c); 0 switches it off.
        reduction: "mean" over the targets not ignored, "sum", or "none" for (N,).
        backend: "naive" (all logits at once), "chunked", or "auto": naive where torch.compile
            fuses it and its tables fit in free memory, else chunked.

    Raises:
        UserError: an unknown backend or reduction.
    """
    for name, value, known in (
        ("loss backend", backend, BACKENDS),
        ("reduction", reduction, REDUCTIONS),
    ):
        if value not in known:
            raise UserError(f"there is no {name} {value!r}; choose one of {', '.join(known)}")
    if backend == "auto":
        backend = _choose(hidden_NC, vocab_size)
    loss = _naive if backend == "naive" else _chunked
    return loss(hidden_NC, weight_VC, targets_N, vocab_size, softcap, reduction)


def _choose(hidden_NC: Tensor, vocab_size: int) -> str:
    """Compiled in bf16 the naive form is the fastest; it is also the hungriest."""
    if hidden_NC.dtype == torch.float32 or not torch.compiler.is_compiling():
        return "chunked"
    bytes_needed = _NAIVE_BYTES * hidden_NC.shape[0] * vocab_size
    device = hidden_NC.device
    return "naive" if fits(bytes_needed, device.type, device.index or 0) else "chunked"


@asked_while_tracing
def fits(bytes_needed: int, device: str, index: int = 0) -> bool:
    """Whether a device's free memory has ample room; under torch.compile, asked while tracing."""
    free = psutil.virtual_memory().available
    if device == "cuda":
        held = torch.cuda.memory_reserved(index) - torch.cuda.memory_allocated(index)
        free = torch.cuda.mem_get_info(index)[0] + held
    return bytes_needed < _FREE_SHARE * free


def _naive(
    hidden_NC: Tensor,
    weight_VC: Tensor,
    targets_N: Tensor,
    vocab_size: int,
    softcap: float,
    reduction: str,
) -> Tensor:
    logits = F.linear(hidden_NC, weight_VC[:vocab_size].to(hidden_NC.dtype))
    wide = torch.promote_types(logits.dtype, torch.float32)
    logits = softcap_logits(logits.to(wide), softcap)
    return F.cross_entropy(logits, targets_N, ignore_index=IGNORE, reduction=reduction)


def _chunked(
    hidden_NC: Tensor,
    weight_VC: Tensor,
    targets_N: Tensor,
    vocab_size: int,
    softcap: float,
    reduction: str,
) -> Tensor:
    learns = torch.is_grad_enabled() and (hidden_NC.requires_grad or weight_VC.requires_grad)
    if reduction == "none" or not learns:
        # Every token may get its own gradient from above: the logits are made again for it.
        loss_N = _token_losses(hidden_NC, weight_VC, targets_N, vocab_size, softcap)
        if reduction == "none":
            return loss_N
        return loss_N.sum() * _share(targets_N, reduction, loss_N.dtype)
    wide = torch.promote_types(hidden_NC.dtype, torch.float32)
    share = _share(targets_N, reduction, wide)
    return _total_loss(hidden_NC, weight_VC, targets_N, share, vocab_size, softcap)[0]


def _share(targets_N: Tensor, reduction: str, dtype: torch.dtype) -> Tensor:
    """What the sum of the losses is multiplied by; 0-dim."""
    if reduction == "sum":
        return torch.ones((), dtype=dtype, device=targets_N.device)
    return 1 / (targets_N != IGNORE).sum().to(dtype)


def _sweep(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    token_grads: Tensor | None,
    vocab_size: int,
    softcap: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """One pass over the tokens, chunk by chunk: losses (N,), and gradients where asked.

    Args:
        token_grads: d(result) / d(loss of each token), (N,) fp32; None for no gradients.

    Returns:
        Losses (N,) fp32, gradient of the hidden states (N, C), gradient of the weight (V, C).
    """
    N, head = hidden.shape[0], weight[:vocab_size].to(hidden.dtype)
    wide = torch.promote_types(hidden.dtype, torch.float32)
    learns = token_grads is not None
    losses = hidden.new_empty(N, dtype=wide)
    d_hidden = torch.empty_like(hidden if learns else hidden[:0])
    d_weight = torch.empty_like(weight if learns else weight[:0], dtype=wide)
    d_weight[vocab_size if N else 0 :] = 0.0
    rows = chunk_rows(vocab_size)
    for start in range(0, N, rows):
        stop = min(start + rows, N)
        logits = hidden[start:stop] @ head.t()
        band = _band_rows(hidden, vocab_size)
        for i in range(start, stop, band):
            at = slice(i, min(i + band, stop))
            z = logits[i - start : at.stop - start]
            losses[at] = _band(
                z, targets[at], None if token_grads is None else token_grads[at], softcap
            )
        if learns:  # the logits have become their gradients
            torch.mm(logits, head, out=d_hidden[start:stop])
            _accumulate(d_weight[:vocab_size], logits, hidden[start:stop], first=start == 0)
    return losses, d_hidden, d_weight.to(weight.dtype)


def _band(logits: Tensor, targets: Tensor, token_grads: Tensor | None, softcap: float) -> Tensor:
    """Losses (n,) of a few rows, in fp32; with ``token_grads``, ``logits`` (n, V) become gradients.

    All passes are in place, over rows that stay in a processor's cache from one to the next.
    """
    kept = targets != IGNORE
    target = targets.clamp(min=0)[:, None]
    scores = logits.to(torch.promote_types(logits.dtype, torch.float32))  # itself, if wide
    bent = scores.div_(softcap).tanh_() if softcap else None
    scores = scores if bent is None else bent * softcap
    right = scores.gather(1, target)[:, 0]
    if not 0 < softcap <= _SAFE_EXPONENT:
        top = scores.amax(dim=1)
        right = right - top
        scores.sub_(top[:, None])
    total = scores.exp_().sum(dim=1)
    losses = torch.where(kept, total.log() - right, 0.0)
    if token_grads is not None:
        grads = torch.where(kept, token_grads, 0.0)
        scores.mul_((grads / total)[:, None])  # the softmax, less 1 at the target:
        scores.scatter_add_(1, target, -grads[:, None])
        if bent is not None:  # times d/dz of c tanh(z / c)
            scores.addcmul_(scores, bent.square_(), value=-1)
        logits.copy_(scores)
    return losses


def _band_rows(hidden: Tensor, vocab_size: int) -> int:
    """Rows that ``_band`` takes: a megabyte on a processor, all of a chunk elsewhere."""
    return max(1, _BAND_ELEMENTS // vocab_size) if hidden.device.type == "cpu" else 1 << 30


def _accumulate(d_weight: Tensor, d_logits: Tensor, hidden: Tensor, first: bool) -> None:
    """d_weight += d_logits.T @ hidden, or = for the first chunk; summed in fp32."""
    if hidden.dtype == d_weight.dtype:
        d_weight.addmm_(d_logits.t(), hidden, beta=0 if first else 1)
    elif first:
        d_weight.copy_(d_logits.t() @ hidden)
    else:
        d_weight += d_logits.t() @ hidden


def chunk_rows(vocab_size: int) -> int:
    """Tokens a chunk: as many as keep its logits at 64 MB in fp32, and the products well fed."""
    return max(128, _CHUNK_ELEMENTS // vocab_size)


@torch.library.custom_op("nanogpt2::total_loss", mutates_args=())
def _total_loss(
    hidden: Tensor, weight: Tensor, targets: Tensor, share: Tensor, vocab_size: int, softcap: float
) -> tuple[Tensor, Tensor, Tensor]:
    """share x the sum of the losses (0-dim), and its gradients, made in the same pass."""
    token_grads = share.expand(targets.shape)
    losses, d_hidden, d_weight = _sweep(hidden, weight, targets, token_grads, vocab_size, softcap)
    return losses.sum() * share, d_hidden, d_weight


@_total_loss.register_fake
def _(
    hidden: Tensor, weight: Tensor, targets: Tensor, share: Tensor, vocab_size: int, softcap: float
) -> tuple[Tensor, Tensor, Tensor]:
    wide = torch.promote_types(hidden.dtype, torch.float32)
    return hidden.new_empty((), dtype=wide), torch.empty_like(hidden), torch.empty_like(weight)


def _keep_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(output[1], output[2])


def _scale_gradients(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    d_hidden, d_weight = ctx.saved_tensors
    return grad.to(d_hidden.dtype) * d_hidden, grad.to(d_weight.dtype) * d_weight, *[None] * 4


_total_loss.register_autograd(_scale_gradients, setup_context=_keep_gradients)


@torch.library.custom_op("nanogpt2::token_losses", mutates_args=())
def _token_losses(
    hidden: Tensor, weight: Tensor, targets: Tensor, vocab_size: int, softcap: float
) -> Tensor:
    """The loss of each token, (N,)."""
    return _sweep(hidden, weight, targets, None, vocab_size, softcap)[0]


@torch.library.custom_op("nanogpt2::token_losses_backward", mutates_args=())
def _token_losses_backward(
    token_grads: Tensor,
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    vocab_size: int,
    softcap: float,
) -> tuple[Tensor, Tensor]:
    """Gradients of the hidden states and the weight, from logits made once more."""
    return _sweep(hidden, weight, targets, token_grads, vocab_size, softcap)[1:]


@_token_losses.register_fake
def _(hidden: Tensor, weight: Tensor, targets: Tensor, vocab_size: int, softcap: float) -> Tensor:
    wide = torch.promote_types(hidden.dtype, torch.float32)
    return hidden.new_empty(hidden.shape[0], dtype=wide)


@_token_losses_backward.register_fake
def _(
    token_grads: Tensor,
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    vocab_size: int,
    softcap: float,
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(hidden), torch.empty_like(weight)


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.vocab_size, ctx.softcap = inputs
    ctx.save_for_backward(*tensors)


def _make_gradients(ctx: Any, token_grads: Tensor) -> tuple[Tensor | None, ...]:
    grads = _token_losses_backward(token_grads, *ctx.saved_tensors, ctx.vocab_size, ctx.softcap)
    return *grads, None, None, None


_token_losses.register_autograd(_make_gradients, setup_context=_keep_inputs)
