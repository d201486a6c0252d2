"""Pictures and tables of the chapter on value embeddings and residual scalars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from matplotlib.figure import Figure

from nanogpt2.depth import attention_flops, dial
from nanogpt2.lab.drawing import PAINT, arrow, box, joint, opening, path, show, words
from nanogpt2.lab.page import Html
from nanogpt2.lab.plots import lines
from nanogpt2.lab.small_run import SmallRun
from nanogpt2.memory import memory_per_rank
from nanogpt2.model.value_embeddings import add_value_embedding
from nanogpt2.recipes import get_recipe
from nanogpt2.reporting.figures import COLOURS, DIVERGING, legend, plotting
from nanogpt2.studies.value_embeddings.measures import DISTANCES

CONTEXTS = ("by the river bank", "money in the bank", "a bank of snow")
CHANNELS = 8


def value_frame(context: str, gate: float) -> tuple[Figure, str]:
    """What attention hands on of " bank": its context's part, plus ``gate`` times its own row."""
    own = torch.randn(CHANNELS, generator=torch.Generator().manual_seed(11))
    seed = torch.Generator().manual_seed(CONTEXTS.index(context) + 20)
    v = torch.randn(1, 1, 1, CHANNELS, generator=seed)
    total = add_value_embedding(v, own.view(1, 1, -1), torch.full((1, 1, 1), gate))
    bars = {
        "from the stream": v.flatten(),
        f"{gate:g} x the row of ' bank'": gate * own,
        "the sum: the value": total.flatten(),
    }
    with plotting(height=3.3) as (fig, axes):
        for place, (name, values) in enumerate(bars.items()):
            base = -5.5 * place
            axes.bar(range(CHANNELS), values.numpy(), 0.62, base, color=COLOURS[place])
            axes.axhline(base, color=COLOURS[5], linewidth=0.8)
            axes.text(-0.6, base + 2.3, name, va="center", size=11)
        axes.set(ylim=(-15.5, 3), xlim=(-0.7, CHANNELS - 0.3))
        axes.set_axis_off()
    listed = ", ".join(f"{value:.1f}" for value in total.flatten().tolist())
    return fig, f"{context}, gate {gate:g}: the eight numbers of the value of 'bank' are {listed}."


def weights_frame(rate: float, steps: int) -> tuple[Figure, str]:
    """Weights in the last stream of 24 layers, after equal steps up of all scalars of one kind."""
    moved = rate * steps
    resid = (1.0 + moved) ** (23.0 - torch.arange(24))
    x0 = torch.full((24,), 0.1 + moved)
    with plotting() as (fig, axes):
        axes.plot(resid.numpy(), label="what block i wrote, if all resid_lambdas moved")
        axes.plot(x0.numpy(), label="x0 added at block i, if all x0_lambdas moved")
        axes.set(xlabel="block i", ylabel="weight at the end", yscale="log", ylim=(0.05, 1e20))
        legend(fig, 1)
    alt = (
        f"After {steps} steps of {rate:g}, the first block's output weighs {resid[0]:.3g} times "
        f"the last one's; x0 is added with weight {float(x0[0]):.3g} at every block."
    )
    return fig, alt


def compute_rows(depth: int = 24) -> list[list[Any]]:
    """Parameters and FLOPs a token by kind of weight, and what value embeddings are of both."""
    found = dial(depth, "run1")
    model, counts = found.model, found.parameters
    layers = sum(model.has_value_embedding(i) for i in range(model.n_layer))
    gates = layers * model.value_gate_channels * model.n_kv_head
    others = counts["matrices"] - gates
    rows: list[list[Any]] = [
        ["value tables", counts["value_embeddings"], 0],
        ["their gates", gates, 6 * gates],
        ["token embedding", counts["wte"], 0],
        ["head", counts["lm_head"], 6 * counts["lm_head"]],
        ["other matrices", others, 6 * others],
        ["residual scalars", counts["scalars"], 0],
        ["attention's scores and mixing", 0, attention_flops(model)],
    ]
    total = ["all", sum(row[1] for row in rows), sum(row[2] for row in rows)]
    assert total[1:] == [counts["total"], found.flops_per_token]
    return [*rows, total]


def memory_rows(ranks: int = 8, rows: int = 16) -> list[list[Any]]:
    """GB on each of ``ranks`` at depth 24, with value embeddings and without, by the planner."""
    recipe = get_recipe("run1")
    model = dial(24, recipe).model
    found = [
        memory_per_rank(one, recipe, ranks, rows, half=True, bf16_tables=True)
        for one in (model, replace(model, value_embeddings=False))
    ]
    kinds = {"optimizer": "optimizer's share", "activations": "activations (estimate)"}
    return [
        [kinds.get(name, name), *(f"{getattr(one, name) / 1e9:.2f}" for one in found)]
        for name in ("parameters", "gradients", "optimizer", "activations", "peak")
    ]


def scalar_map(run: SmallRun, name: str, caption: str = "") -> Html:
    """``name`` of every layer over the steps of a run with ``scalars_probe``, as colours."""
    layers, steps = range(run.config.n_layer), run.series("step")
    values = torch.tensor([run.series(f"{name}.{i}") for i in layers])
    start = float(values[:, 0].mean())
    most = max(float((values - start).abs().max()), 1e-3)
    with plotting() as (fig, axes):
        picture = axes.imshow(
            values.numpy(), cmap=DIVERGING, vmin=start - most, vmax=start + most, aspect="auto",
            interpolation="none", extent=(0, steps[-1], len(layers) - 0.5, -0.5),
        )  # fmt: skip
        axes.grid(False)
        axes.set(xlabel="step", ylabel="layer", yticks=range(0, len(layers), 2))
        bar = fig.colorbar(picture, ax=axes, label=name.replace("_lambdas", "_lambda"))
        bar.outline.set_visible(False)
    ends = ", ".join(f"{value:.2f}" for value in values[:, -1].tolist())
    alt = f"{name} by layer and step, all near {start:.2g} at first. At the end, layer 0 to last: "
    return show(fig, f"{alt}{ends}.", caption)


def gate_ranges(spread: dict[str, Any], caption: str = "") -> Html:
    """Each gate's mean and the range of the middle 80% of tokens; from ``reading``."""
    names: list[str] = []
    told: list[str] = []
    with plotting(height=2.4) as (fig, axes):
        for layer, found in spread.items():
            for head, mean in enumerate(found["mean"]):
                at, low, high = len(names), found["low"][head], found["high"][head]
                colour = COLOURS[0 if layer == next(iter(spread)) else 1]
                axes.plot([low, high], [at, at], "-", color=colour, linewidth=5, alpha=0.45)
                axes.plot([mean], [at], "o", color=colour)
                names.append(f"layer {layer}, head {head}")
                told.append(f"{names[-1]}: {mean:.2f}, from {low:.2f} to {high:.2f}")
        axes.axvline(1.0, color=COLOURS[5], linewidth=1, linestyle="-")
        axes.set(xlim=(0, 2), xlabel="gate", yticks=range(len(names)), yticklabels=names)
        axes.invert_yaxis()
    return show(fig, "Mean and range of each gate. " + "; ".join(told) + ".", caption)


def distance_lines(found: dict[str, Sequence[float]], caption: str = "") -> Html:
    """How well what a token promises agrees with what follows it, by distance."""
    best = [f"{name} agrees best at distance {DISTANCES[max(range(len(v)), key=v.__getitem__)]}"
            for name, v in found.items()]  # fmt: skip
    return lines(DISTANCES, found, alt="; ".join(best) + ".", caption=caption, log_x=True,
                 x_label="tokens later", y_label="agreement (correlation)")  # fmt: skip


def word_rows(found: dict[str, dict[str, list[str]]], most: int = 5) -> list[list[str]]:
    """A table of tokens: one row a word, one column a place; spaces at the front are shown."""

    def shown(token: str) -> str:
        return token.replace(" ", "_").replace("\n", "/") or "(nothing)"

    return [
        [shown(word), *("  ".join(shown(t) for t in near[:most]) for near in places.values())]
        for word, places in found.items()
    ]


def block_path(caption: str = "") -> Html:
    """The chapter's idea: the two ways by which a token's own number reaches deep into a block."""
    at = dial(24, "run1").model
    rows, wide = (
        f"({at.sequence_len:,}, {at.n_embd:,})",
        f"({at.padded_vocab_size:,}, {at.kv_dim:,})",
    )
    heads = f"({at.sequence_len:,}, {at.n_kv_head}, {at.head_dim})"
    blue, red, thick = PAINT[0], PAINT[1], 5
    drawn = [
        box(72, 30, 130, "token 7,241", f"of {at.padded_vocab_size:,}"),
        arrow((137, 30), (196, 30)),
        box(290, 30, 186, "x0: its embedding", rows),
        path("M383 30H452V86M452 114V476M452 504V540", PAINT[5], thick),
        arrow((290, 55), (290, 100), (436, 100), colour=red),
        words(356, 92, "μ x0, 0.1 at first", "middle", 15),
        words(442, 72, "λ x", "end", 15),
        joint(452, 100, "+"),
        arrow((450, 158), (382, 158)),
        box(290, 158, 182, "norm: h", rows),
        arrow((222, 183), (222, 220)),
        arrow((350, 183), (350, 220)),
        arrow((72, 55), (72, 220), colour=blue),
        words(80, 110, "looks up", size=15),
        box(72, 246, 130, "row of a table", wide, PAINT[0]),
        box(222, 246, 142, "gate, 0 to 2", f"from {at.value_gate_channels} channels", PAINT[0]),
        box(372, 246, 132, "W_v h", heads),
        arrow((72, 271), (72, 318), (128, 318), colour=blue),
        arrow((222, 271), (222, 318), (162, 318), colour=blue),
        joint(145, 318, "×"),
        arrow((145, 332), (145, 362), (334, 362), colour=blue),
        words(240, 354, "one gate a head", "middle", 15),
        arrow((350, 271), (350, 346)),
        joint(350, 362, "+"),
        arrow((350, 378), (350, 400)),
        box(342, 426, 172, "values v", heads),
        arrow((255, 426), (224, 426)),
        box(116, 426, 212, "attention, then W_o", "q and k say where to look"),
        arrow((122, 451), (122, 490), (436, 490)),
        joint(452, 490, "+"),
        words(436, 532, "the stream goes on, to the MLP", "end", 15),
    ]
    alt = (
        "A block of depth 24. The token's number looks up its embedding, x0, which begins the "
        "stream and is added again, times mu, at the block's door. From the normed stream come a "
        "gate and the product with W_v. The same number looks up a row of the layer's value "
        "table; the row times the gate is added to W_v h. The sum is the value that attention "
        "carries to other tokens, and back into the stream."
    )
    return opening(drawn, 548, alt, caption)
