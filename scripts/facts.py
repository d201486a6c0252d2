"""The numbers that the book's pages name, computed by the package when the book is built.

Inputs are what was reported (``nanogpt2.reported``); everything else follows by arithmetic.
A page takes a number by name, as ``{{ run1_tokens }}``, so that no number is typed twice.
"""

from __future__ import annotations

from pathlib import Path

import nanogpt2
from nanogpt2 import reported
from nanogpt2.costs import gpt2_dollars
from nanogpt2.depth import Dial, dial
from nanogpt2.recipes import RECIPES
from nanogpt2.reported import LEADERBOARD

YEARS = 7
"""from February 2019 to January 2026, in whole years"""


def badge(kind: str) -> str:
    """A badge as HTML: live, recorded or reported."""
    return f'<span class="ng-badge ng-{kind}">{kind}</span>'


def _cost_of_run(hours: float) -> float:
    return hours * reported.NODE_DOLLARS_PER_HOUR


def _runs(count: int) -> str:
    return "one run" if count == 1 else f"mean of {count}"


def package_lines() -> int:
    """Lines of the package's Python, comments and docstrings included."""
    files = Path(nanogpt2.__file__).parent.rglob("*.py")
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)


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
    run1_hours = reported.RUN1_SECONDS / 3600
    fall = gpt2_dollars() / _cost_of_run(run1_hours)
    by_llmc = gpt2_dollars() / reported.LLMC_DOLLARS
    last = LEADERBOARD["run6"]
    return {
        "version": str(nanogpt2.__version__),
        "live": badge("live"),
        "recorded": badge("recorded"),
        "reported": badge("reported"),
        "package_lines": f"{round(package_lines(), -3):,}",
        "gpt2_tpus": f"{reported.GPT2_DEVICES:.0f}",
        "gpt2_hours": f"{reported.GPT2_HOURS:.0f}",
        "tpu_dollars_per_hour": f"{reported.TPU_DEVICE_DOLLARS:.0f}",
        "gpt2_cost": f"{gpt2_dollars():,}",
        "gpt2_cost_of_chips": f"{gpt2_dollars() / reported.TPU_DEVICE_CHIPS:,.0f}",
        "gpt2_core": f"{reported.GPT2_CORE}",
        "run1_core": f"{reported.RUN1_CORE}",
        "core_margin": f"{reported.RUN1_CORE - reported.GPT2_CORE:.4f}",
        "bpb_too_low": f"{reported.BPB_TOO_LOW:.2%}",
        "node_dollars_per_hour": f"{reported.NODE_DOLLARS_PER_HOUR:.0f}",
        "run1_hours": f"{run1_hours:.2f}",
        "run1_cost": f"{_cost_of_run(run1_hours):.0f}",
        "run6_hours": f"{last.hours:.2f}",
        "run6_cost": f"{_cost_of_run(last.hours):.0f}",
        "cost_fall": f"{10 * round(fall / 10):.0f}",
        "cost_per_year": f"{fall ** (-1 / YEARS):.2f}",
        "llmc_hours": f"{reported.LLMC_HOURS:.0f}",
        "llmc_cost": f"{reported.LLMC_DOLLARS:.0f}",
        "llmc_steps": f"{reported.LLMC_STEPS:,.0f}",
        "llmc_passed_at": f"{reported.LLMC_PASSED_AT:,.0f}",
        "torn_tokens": f"{reported.TORN_TOKENS:.0f}",
        "webtext_gigabytes": f"{reported.WEBTEXT_BYTES / 1e9:.0f}",
        "llmc_fall": f"{by_llmc:.0f}",
        "since_llmc_fall": f"{fall / by_llmc:.0f}",
        "ratio_optimal": f"{reported.RATIO_OPTIMAL}",
        "ratio_of_all_before": f"{reported.RATIO_OF_ALL_BEFORE:.0f}",
        "ratio_of_all_after": f"{reported.RATIO_OF_ALL_AFTER:.0f}",
        "gpt3_core": f"{reported.GPT3_CORE}",
        "gpt3_parameters_billion": f"{reported.GPT3_PARAMETERS / 1e9:.0f}",
        "gpt3_tokens_billion": f"{reported.GPT3_TOKENS / 1e9:.0f}",
        "tpu_chip_watts_low": f"{reported.TPU_CHIP_WATTS_LOW:.0f}",
        "tpu_chip_watts_high": f"{reported.TPU_CHIP_WATTS_HIGH:.0f}",
        "dgx_kilowatts": f"{reported.DGX_H100_WATTS / 1000:.1f}",
        "memorized_bits": f"{reported.MEMORIZED_BITS}",
        "fineweb_core": f"{reported.FINEWEB_CORE}",
        "finepdfs_core": f"{reported.FINEPDFS_CORE}",
        "run3_core": f"{LEADERBOARD['run3'].core}",
        "seeds": f"{reported.SEEDS:.0f}",
        "seeds_core": f"{reported.SEEDS_CORE}",
        "seeds_core_sd": f"{reported.SEEDS_CORE_SD}",
        "seeds_bpb": f"{reported.SEEDS_BPB}",
        "seeds_bpb_sd": f"{reported.SEEDS_BPB_SD:.5f}",
        "mup_core": f"{reported.MUP_CORE}",
        "mup_baseline_core": f"{reported.MUP_BASELINE_CORE}",
        **_of_dial("run1", dial(recipe="run1")),
        **_of_dial("d12", dial(12, "run1")),
    }


def leaderboard() -> str:
    """The records as a Markdown table: what was reported, beside what the package computes."""
    rows = [
        "| run | hours | dollars | CORE | of | bits per byte | depth | steps | what changed |",
        "| --- | --: | --: | --: | --: | --: | --: | --: | --- |",
    ]
    for recipe in RECIPES.values():
        if recipe.record is None:
            continue
        record, at = recipe.record, dial(recipe=recipe)
        rows.append(
            f"| {recipe.name} | {record.hours:.2f} | {_cost_of_run(record.hours):.0f} | "
            f"{record.core:.4f} | {_runs(record.runs)} | {record.val_bpb:.5f} | {at.depth} | "
            f"{at.iterations:,} | "
            f"{recipe.summary} |"
        )
    return "\n".join(rows)


def reported_table() -> str:
    """Every reported constant as a Markdown table: value, unit, who said it, when."""
    rows = ["| constant | value | unit | source | date |", "| --- | --: | --- | --- | --- |"]
    for name, value in reported.constants().items():
        shown = f"{float(value):,.10g}" if value < 1e7 else f"{float(value):.10g}"
        rows.append(
            f"| {name.lower().replace('_', ' ')} | {shown} | {value.unit} | "
            f"{{cite:t}}`{value.key}` | {value.date} |"
        )
    return "\n".join(rows)
