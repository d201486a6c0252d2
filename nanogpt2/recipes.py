"""The records by name: ``run1`` ... ``run6``, ``head``, and ``laptop``.

A recipe is everything that was chosen for a run and nothing that follows from the choice (see
``nanogpt2.depth`` for that). Each says only how it differs from the one before it. Figures:
the leaderboard of "time to GPT-2" (A. Karpathy, nanochat), as ``nanogpt2.reported`` has it.
``python -m nanogpt2.recipes --diff A B`` prints how two of them differ.

Chapter: speedrun.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, field, replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from nanogpt2.config import GPTConfig, Layers
from nanogpt2.errors import UserError, run_command
from nanogpt2.reported import LEADERBOARD
from nanogpt2.settings import (
    Count,
    Decay,
    Decays,
    Natural,
    Number,
    Scale,
    flat,
    from_dict,
    override,
    settings,
)

SIZES = ("n_layer", "n_embd", "n_head", "n_kv_head")
Side = Annotated[int, Field(ge=1, lt=2**16)]


@settings
class AdamWGroup:
    """How AdamW treats one kind of parameter (Loshchilov and Hutter, 1711.05101)."""

    lr: Scale
    betas: Decays = (0.8, 0.95)
    weight_decay: Scale = 0.0
    width_scaled: bool = True
    """multiply lr by (width / 768) ** -0.5"""
    batch_scaled: bool = True
    """multiply lr by sqrt(batch / rates_batch_tokens)"""


@settings
class Muon:
    """How Muon treats the matrices inside the blocks; see ``nanogpt2.optim.muon``."""

    lr: Scale = 0.02
    momentum: Decays = (0.85, 0.95)
    """start and end of the warm-up of the momentum"""
    momentum_steps: Natural = 300
    """length of that warm-up"""
    momentum_end: Decay | None = None
    """momentum at the last step, reached linearly over the warm-down of the learning rate"""
    polynomial: Literal["polar_express", "newton_schulz"] = "polar_express"
    """what orthogonalizes: Polar Express (Amsel et al., 2505.16932), or what Muon began with"""
    beta2: Annotated[Number, Field(ge=0, le=1)] = 0.95
    """decay of NorMuon's second moment (Li et al., 2510.05491); 1 leaves NorMuon out"""
    divisor: Annotated[Number, Field(ge=0.1)] = 1.02
    """safety factor on the Frobenius norm before Polar Express (Amsel et al., 2505.16932)"""
    iterations: Annotated[int, Field(ge=1, le=5)] = 5
    """steps of Polar Express, at most 5"""
    weight_decay: Scale = 0.2
    """base of the weight decay; ``weight_decay_rule`` scales it"""
    cautious: bool = True
    """decay only where the step shrinks the weight too (2510.12402)"""
    weight_decay_rule: Literal["depth", "horizon"] = "depth"
    """depth: x (12 / d)^2; horizon: x lr_scale D_ref / D"""
    weight_decay_schedule: Literal["linear", "cosine", "constant"] = "linear"
    """how it falls to 0 at the last step"""
    equalize_rows: bool = False
    """MuonEq: rows brought to one norm before Polar Express"""
    fix_norm: bool = False
    """Muon+: scaled to Frobenius norm sqrt(min(rows, cols)) after it"""


@settings
class Record:
    """What was reported for a run on 8xH100; time leaves out evaluations."""

    hours: Scale
    val_bpb: Scale
    core: Number
    date: str
    commit: str
    runs: int = 1
    """of which the figures are the mean"""


@settings
class Recipe:
    """All choices of a run. The defaults are those of the 29 January 2026 run."""

    name: str
    summary: str
    depth: Layers = 24
    ratio: Annotated[float, Field(gt=0, lt=1e6)] = 12.0
    """training tokens per scaling parameter; see ``reported.RATIO_OPTIMAL`` for the best one"""
    iterations: Count | None = None
    """number of steps; None: from ``ratio``"""
    batch_tokens: Count | Literal["auto"] = 2**19
    """tokens per step; auto: 2^round(log2(2^19 (D / D_ref)^0.383)) (2505.13738)"""
    rates_batch_tokens: Count = 2**19
    """the batch at which the rates are as they stand; at others they are scaled by the root"""
    device_batch_size: Count = 16
    """rows per forward pass on one device; the rest is gradient accumulation"""
    packing: Literal["best_fit", "stream"] = "best_fit"
    """rows that begin with a document, or cut from all documents laid end to end"""
    data: Literal["embedded", "fineweb-edu", "climbmix"] = "fineweb-edu"
    precision: Literal["bf16", "fp8", "fp16", "fp32"] = "bf16"
    fp8_min_side: Natural = 16
    """fp8 leaves linear layers alone that have a side shorter than this"""
    head_dim: Side = 128
    aspect: Side = 64
    """width per layer, before rounding up to a multiple of ``head_dim``"""
    model: GPTConfig = GPTConfig()
    """switches, sequence length and vocabulary; depth sets the other sizes"""

    matrices: Literal["muon", "adamw"] = "muon"
    """who updates the matrices inside the blocks"""
    muon: Muon = Muon()
    matrices_adamw: AdamWGroup = AdamWGroup(0.003, betas=(0.9, 0.95), weight_decay=0.1)
    """rates for ``matrices = "adamw"``"""
    lm_head: AdamWGroup = AdamWGroup(0.004)
    wte: AdamWGroup = AdamWGroup(0.3)
    value_embeddings: AdamWGroup = AdamWGroup(0.3)
    resid_lambdas: AdamWGroup = AdamWGroup(0.005, width_scaled=False)
    x0_lambdas: AdamWGroup = AdamWGroup(0.5, betas=(0.96, 0.95), width_scaled=False)
    mixers: AdamWGroup = AdamWGroup(0.2, width_scaled=False, batch_scaled=False)
    """smear and backout"""
    vectors: AdamWGroup = AdamWGroup(0.005)
    """gains and biases, where a switch brings them back"""

    warmup_steps: Natural = 0
    warmdown_ratio: Annotated[float, Field(ge=0, le=1)] = 0.5
    """the last part of the run over which the learning rate falls linearly ..."""
    final_lr: Scale = 0.0
    """... to this part of its peak"""

    record: Record | None = field(default=None, compare=False)

    BARE: ClassVar[Any] = ("model",)
    """groups whose fields may be set without the group's name"""
    ALIASES: ClassVar[Any] = {"steps": "iterations"}
    CLOSED: ClassVar[Any] = {
        **dict.fromkeys(("name", "summary", "record"), "names the recipe and changes nothing"),
        **dict.fromkeys(
            (f"{group}{size}" for group in ("", "model.") for size in SIZES),
            "follows from the depth; set depth, aspect or head_dim instead",
        ),
    }
    """fields that may not be set, and why"""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The inverse of ``to_dict``; unknown names raise UserError."""
        return from_dict(cls, values, "the recipe")


RUN1 = Recipe(
    name="run1",
    summary="d24 at 12 tokens per parameter: GPT-2's score in 3.04 hours",
    record=Record(*LEADERBOARD["run1"]),
)
RUN2 = replace(
    RUN1,
    name="run2",
    summary="d26, trained shorter, products in fp8",
    depth=26,
    ratio=8.5,
    precision="fp8",
    record=Record(*LEADERBOARD["run2"]),
)
RUN3 = replace(
    RUN2,
    name="run3",
    summary="twice the batch, rates up by sqrt 2",
    ratio=8.25,
    batch_tokens=2**20,
    record=Record(*LEADERBOARD["run3"]),
)
RUN4 = replace(
    RUN3,
    name="run4",
    summary="ClimbMix data, d24, batch and weight decay from the horizon",
    depth=24,
    ratio=9.5,
    batch_tokens="auto",
    data="climbmix",
    fp8_min_side=128,
    model=replace(RUN3.model, logit_softcap=20.0),
    muon=replace(RUN3.muon, weight_decay_rule="horizon"),
    record=Record(*LEADERBOARD["run4"]),
)
RUN5 = replace(
    RUN4,
    name="run5",
    summary="automated research, round 1: rates, decay, starts, narrower windows",
    ratio=8.7,
    model=replace(
        RUN4.model,
        logit_softcap=15.0,
        rope_base=100_000.0,
        short_window_divisor=3,
        short_window_multiple=128,
        qk_scale=1.15,
        wte_std=0.8,
        mlp_start_scale=0.5,
        value_gate_channels=12,
        value_gate_range=3.0,
        value_gate_start=0.02,
    ),
    muon=replace(
        RUN4.muon,
        beta2=0.9,
        divisor=1.01,
        weight_decay=0.28,
        weight_decay_schedule="cosine",
        momentum=(0.85, 0.97),
        momentum_steps=400,
    ),
    lm_head=AdamWGroup(0.008, betas=(0.8, 0.96), weight_decay=0.01),
    wte=AdamWGroup(0.3, betas=(0.8, 0.995), weight_decay=0.001),
    value_embeddings=AdamWGroup(0.15, betas=(0.8, 0.995), weight_decay=0.01),
    resid_lambdas=replace(RUN4.resid_lambdas, weight_decay=0.05),
    warmup_steps=40,
    warmdown_ratio=0.65,
    final_lr=0.05,
    record=Record(*LEADERBOARD["run5"]),
)
RUN6 = replace(
    RUN5,
    name="run6",
    summary="automated research, round 2: smear, backout, scalars that start by depth",
    ratio=8.0,
    model=replace(
        RUN5.model,
        qk_scale=1.2,
        short_window_divisor=4,
        mlp_start_scale=0.4,
        resid_lambda_start=(1.15, 1.05),
        x0_lambda_start=(0.20, 0.05),
        smear=True,
        backout=True,
    ),
    muon=replace(RUN5.muon, momentum_end=0.90),
    record=Record(*LEADERBOARD["run6"]),
)
HEAD = replace(
    RUN6,
    name="head",
    summary="run 6 with MuonEq and Muon+, as they came after the records",
    muon=replace(RUN6.muon, equalize_rows=True, fix_norm=True),
    record=None,
)
# Sizes and rates were chosen by runs of equal seconds on two cores. Small and long beats large and
# short: width 128 learns more than 192 or 256. Run 1's rates do at 2,048 tokens a step as they
# stand, where the root of the batch would make them 16 times smaller, and the loss much higher.
LAPTOP = replace(
    RUN1,
    name="laptop",
    summary="run 1's model made small: two processor cores, the embedded corpus, six minutes",
    depth=4,
    aspect=32,
    head_dim=64,
    ratio=2.75,
    batch_tokens=4096,
    rates_batch_tokens=2048,
    data="embedded",
    model=replace(RUN1.model, sequence_len=256, vocab_size=4096),
    record=None,
)
# Small enough that two hundred runs end: one takes about two minutes of one core in fp32, and eight
# on a processor without AVX-512. Small batches, so that there are steps enough for schedules to
# matter. Its rates, and the steps that momentum takes to warm up, are the recorded sweep's best.
YARDSTICK: Recipe = replace(
    LAPTOP,
    name="yardstick",
    summary="what techniques are compared by: the laptop's model, two minutes of one core",
    iterations=576,
    batch_tokens=2048,
    precision="fp32",
    model=replace(LAPTOP.model, vocab_size=2048),
    wte=replace(LAPTOP.wte, lr=0.6),
    x0_lambdas=replace(LAPTOP.x0_lambdas, lr=0.0312),
    muon=replace(LAPTOP.muon, weight_decay=0.0125, momentum_steps=192),
    record=None,
)

RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe for recipe in (LAPTOP, RUN1, RUN2, RUN3, RUN4, RUN5, RUN6, HEAD)
}
UNSAID = ("name", "summary", "record")
"""fields that change nothing"""


def get_recipe(name: str | Recipe, **changes: Any) -> Recipe:
    """The recipe of that name (a Recipe passes through), with fields changed as by ``--set``.

    UserError names the known recipes, or says which change does not fit.
    """
    recipe = name if isinstance(name, Recipe) else RECIPES.get(name)
    if recipe is None:
        raise UserError(f"unknown recipe {name!r}; choose one of {', '.join(RECIPES)}")
    return override(recipe, {field: str(value) for field, value in changes.items()})


def differences(first: Recipe, second: Recipe) -> dict[str, tuple[Any, Any]]:
    """What differs: name of the setting -> its value in the first and in the second."""
    a, b = (dict(flat(recipe.to_dict())) for recipe in (first, second))
    names = [name for name in a if name.partition(".")[0] not in UNSAID]
    return {name: (a[name], b[name]) for name in names if a[name] != b.get(name)}


if __name__ == "__main__":
    from nanogpt2.rungs import main  # the rungs, which stand on the recipes, can be named too

    run_command(main)
