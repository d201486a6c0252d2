"""The numbers that the book's pages name, computed by the package when the book is built.

Inputs are what was reported (`REPORTED`, with who said so); everything else follows by arithmetic.
A page takes a number by name, as ``{{ run1_tokens }}``, so that no number is typed twice.
"""

from __future__ import annotations

import nanogpt2
from nanogpt2.depth import Dial, dial
from nanogpt2.recipes import RECIPES, get_recipe

REPORTED = {
    "gpt2_tpus": 32.0,
    "gpt2_hours": 168.0,
    "tpu_dollars_per_hour": 8.0,
    "gpt2_core": 0.256525,
    "run1_seconds": 10_949.46713,
    "run1_core": 0.25851,
    "run1_bpb": 0.74833,
    "node_dollars_per_hour": 24.0,
}
"""OpenAI's 2019 run as costed in nanochat's discussion 481, and the 29 January 2026 run there"""
YEARS = 7
"""from February 2019 to January 2026, in whole years"""


def badge(kind: str) -> str:
    """A badge as HTML: live, recorded or reported."""
    return f'<span class="ng-badge ng-{kind}">{kind}</span>'


def _cost_of_run(hours: float) -> float:
    return hours * REPORTED["node_dollars_per_hour"]


def _of_dial(name: str, at: Dial) -> dict[str, str]:
    """What follows from a depth and a recipe, as text."""
    facts = {
        f"{name}_depth": f"{at.depth}",
        f"{name}_width": f"{at.n_embd:,}",
        f"{name}_heads": f"{at.n_head}",
        f"{name}_steps": f"{at.iterations:,}",
        f"{name}_batch": f"{at.batch_tokens:,}",
        f"{name}_tokens": f"{at.tokens:,}",
        f"{name}_tokens_billion": f"{at.tokens / 1e9:.2f}",
        f"{name}_flops_per_token": f"{at.flops_per_token:,}",
        f"{name}_flops": f"{float(at.total_flops)}",
        f"{name}_flops_short": f"{at.total_flops / 1e19:.2f}",
        f"{name}_scaling_parameters": f"{at.scaling_parameters:,}",
    }
    for kind, count in at.parameters.items():
        facts[f"{name}_{kind}"] = f"{count:,}"
    facts[f"{name}_value_embeddings_million"] = f"{at.parameters['value_embeddings'] / 1e6:.0f}"
    facts[f"{name}_total_billion"] = f"{at.parameters['total'] / 1e9:.2f}"
    return facts


def facts() -> dict[str, str]:
    """Every number by name, written as a page shows it."""
    gpt2_cost = REPORTED["gpt2_tpus"] * REPORTED["gpt2_hours"] * REPORTED["tpu_dollars_per_hour"]
    run1_hours = REPORTED["run1_seconds"] / 3600
    fall = gpt2_cost / _cost_of_run(run1_hours)
    record = get_recipe("run6").record
    assert record is not None
    return {
        "version": str(nanogpt2.__version__),
        "live": badge("live"),
        "recorded": badge("recorded"),
        "reported": badge("reported"),
        "gpt2_tpus": f"{REPORTED['gpt2_tpus']:.0f}",
        "gpt2_hours": f"{REPORTED['gpt2_hours']:.0f}",
        "tpu_dollars_per_hour": f"{REPORTED['tpu_dollars_per_hour']:.0f}",
        "gpt2_cost": f"{gpt2_cost:,.0f}",
        "gpt2_core": f"{REPORTED['gpt2_core']}",
        "run1_seconds": f"{REPORTED['run1_seconds']:,.0f}",
        "run1_core": f"{REPORTED['run1_core']}",
        "run1_bpb": f"{REPORTED['run1_bpb']}",
        "core_margin": f"{REPORTED['run1_core'] - REPORTED['gpt2_core']:.4f}",
        "node_dollars_per_hour": f"{REPORTED['node_dollars_per_hour']:.0f}",
        "run1_hours": f"{run1_hours:.2f}",
        "run1_cost": f"{_cost_of_run(run1_hours):.0f}",
        "run6_hours": f"{record.hours:.2f}",
        "run6_cost": f"{_cost_of_run(record.hours):.0f}",
        "cost_fall": f"{10 * round(fall / 10):.0f}",
        "cost_per_year": f"{fall ** (-1 / YEARS):.2f}",
        "gpt2_chip_hours": f"{REPORTED['gpt2_tpus'] * REPORTED['gpt2_hours']:,.0f}",
        "run1_gpu_hours": f"{8 * run1_hours:.1f}",
        **_of_dial("run1", dial(recipe="run1")),
        **_of_dial("d12", dial(12, "run1")),
    }


def leaderboard() -> str:
    """The records as a Markdown table: what was reported, beside what the package computes."""
    rows = [
        "| run | hours | dollars | CORE | bits per byte | depth | steps | what changed |",
        "| --- | --: | --: | --: | --: | --: | --: | --- |",
    ]
    for recipe in RECIPES.values():
        if recipe.record is None:
            continue
        record, at = recipe.record, dial(recipe=recipe)
        rows.append(
            f"| {recipe.name} | {record.hours:.2f} | {_cost_of_run(record.hours):.0f} | "
            f"{record.core:.4f} | {record.val_bpb:.5f} | {at.depth} | {at.iterations:,} | "
            f"{recipe.summary} |"
        )
    return "\n".join(rows)
