"""A plan in lines for people. Chapter: speedrun."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from nanogpt2.costs import gpt2_dollars, gpt2_kwh
from nanogpt2.machines import GB
from nanogpt2.recipes import RECIPES

if TYPE_CHECKING:
    from nanogpt2.planning import Plan


def duration(seconds: float) -> str:
    """Seconds for people: 5 min 20 s, 3 h 2 min, 9 d 4 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.0f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400:,} d {whole % 86400 // 3600} h"


def _against(ours: float, theirs: float, plan: Plan) -> str:
    """The comparison with GPT-2 in 2019, for runs that aim at it."""
    known = RECIPES.get(plan.recipe)
    if known is None or known.record is None or known.depth != plan.depth or not ours:
        return ""
    return f"; GPT-2 in 2019: about {theirs:,.0f}, {theirs / ours:,.0f} times as much"


def describe(plan: Plan) -> Iterator[tuple[str, str]]:
    """The plan for people, as (name, value): what follows from the depth, then what it costs."""
    resolved, model, memory = plan.dial, plan.dial.model, plan.memory
    known = RECIPES.get(plan.recipe)
    summary = f": {known.summary}" if known else ""
    if known and known.record and known.depth != plan.depth:
        summary = f" instead of {known.depth}: another model than the record's, with another score"
    yield "recipe", f"{plan.recipe}, depth {plan.depth}{summary}"
    window = f"{model.window_pattern} (short {model.short_window:,})"
    yield (
        "model",
        f"{model.n_layer} layers, width {model.n_embd:,}, {model.n_head} heads, "
        f"context {model.sequence_len:,}, windows {window}, vocabulary {model.vocab_size:,}",
    )
    counts = dict(resolved.parameters)
    total = counts.pop("total")
    parts = "; ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items())
    yield "parameters", f"{total:,} ({parts})"
    yield (
        "batch",
        f"{resolved.batch_tokens:,} tokens: {plan.device_batch_size} rows a pass, "
        f"{plan.accumulation} passes a step",
    )
    yield "steps", f"{resolved.iterations:,}"
    yield "tokens", f"{resolved.tokens:,}"
    rounded = repr(float(resolved.total_flops)).replace("e+", "e")
    flops = f"{resolved.total_flops:,}" + (f" ({rounded})" if "e" in rounded else "")
    yield "FLOPs", f"{flops}; {resolved.flops_per_token:,} per token"
    yield (
        "rates",
        f"learning-rate scale {resolved.lr_scale:.6g}, "
        f"Muon's weight decay {resolved.weight_decay:.6g}",
    )
    yield "machine", plan.machine.describe()
    yield "fits", "yes" if plan.fits else "no: " + "; ".join(plan.reasons)
    held = ", ".join(f"{name} {value / GB:.2f}" for name, value in asdict(memory).items())
    room = plan.machine.memory_bytes / GB
    yield "memory", f"about {memory.peak / GB:.1f} GB of {room:.0f} GB ({held})"
    yield "disk", f"about {plan.disk_bytes / GB:.1f} GB"
    if plan.step_seconds is not None:
        pace = resolved.batch_tokens / plan.step_seconds
        yield (
            "time",
            f"about {duration(plan.step_seconds * resolved.iterations)} of training, "
            f"measured just now: {pace:,.0f} tokens a second",
        )
    elif plan.seconds is not None:
        yield "time", f"about {duration(plan.seconds)} of training, at {plan.mfu:.1%} of peak"
    if plan.kwh is not None:
        kwh = f"{plan.kwh:,.0f}" if plan.kwh >= 100 else f"{plan.kwh:.3g}"
        yield "energy", f"at most {kwh} kWh" + _against(plan.kwh, gpt2_kwh(), plan)
    if plan.dollars is not None:
        yield "money", f"${plan.dollars:,.2f}" + _against(plan.dollars, gpt2_dollars(), plan)
    for note in plan.notes:
        yield "note", note
