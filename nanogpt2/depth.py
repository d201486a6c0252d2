"""The one dial: from a depth and a recipe to sizes, FLOPs, horizon, batch, rates and decay.

Pure arithmetic, no torch, so that the planner and a ``--dry-run`` answer at once. Sources: the
width rule, the horizon and the decay rule are run 1's; the batch rule is the power law of
arXiv 2505.13738; FLOPs per token follow Kaplan et al. (2001.08361) and Chinchilla (2203.15556,
appendix F): 6 per parameter that enters a product, plus the attention.

Chapter: scaling_laws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

from nanogpt2.config import GPTConfig
from nanogpt2.errors import UserError
from nanogpt2.recipes import Recipe, get_recipe

REFERENCE_BATCH = 2**19
REFERENCE_DEPTH = 12
REFERENCE_WIDTH = 768
BATCH_EXPONENT = 0.383


@dataclass(frozen=True)
class Dial:
    """What follows from a depth and a recipe."""

    depth: int
    recipe: str
    model: GPTConfig
    parameters: dict[str, int]
    """by kind: wte, value_embeddings, lm_head, matrices, scalars, total"""
    scaling_parameters: int
    """matrices + lm_head, the N of the token:parameter ratio"""
    flops_per_token: int
    """forward and backward"""
    iterations: int
    tokens: int
    total_flops: int
    batch_tokens: int
    lr_scale: float
    """sqrt(batch / the batch that the recipe's rates are for), 2^19 in the records"""
    weight_decay: float
    """Muon's, at the first step"""

    @property
    def n_layer(self) -> int:
        """Layers."""
        return self.model.n_layer

    @property
    def n_embd(self) -> int:
        """Width."""
        return self.model.n_embd

    @property
    def n_head(self) -> int:
        """Query heads."""
        return self.model.n_head


@dataclass(frozen=True)
class Batch:
    """How a step's rows are spread: over ranks, then over forward passes."""

    rows: int
    """of one forward pass on one rank (B)"""
    passes: int
    """forward and backward passes a step (gradient accumulation)"""
    tokens: int
    """of one step, over all ranks"""


def shape_batch(tokens: int, sequence_len: int, world_size: int, most_rows: int) -> Batch:
    """The largest number of rows up to ``most_rows`` that deals out a batch of ``tokens`` exactly.

    Raises UserError where the batch is no whole number of rows on every rank.
    """
    rows, rest = divmod(tokens, sequence_len * world_size)
    if rest or not rows:
        raise UserError(
            f"a batch of {tokens:,} tokens is not a whole number of rows of {sequence_len:,} on "
            f"each of {world_size} ranks; choose batch_tokens as a multiple of "
            f"{sequence_len * world_size:,}"
        )
    most = max(n for n in range(1, min(most_rows, rows) + 1) if rows % n == 0)
    return Batch(rows=most, passes=rows // most, tokens=tokens)


def model_at(depth: int, recipe: Recipe) -> GPTConfig:
    """The recipe's model at ``depth``: width = aspect x depth, rounded up to whole heads."""
    if depth < 1:
        raise UserError(f"depth is {depth}; it must be at least 1")
    heads = -(-recipe.aspect * depth // recipe.head_dim)
    sizes = {"n_layer": depth, "n_embd": heads * recipe.head_dim}
    return replace(recipe.model, **sizes, n_head=heads, n_kv_head=heads)  # type: ignore[arg-type]


def parameter_counts(model: GPTConfig) -> dict[str, int]:
    """Number of parameters by kind, by formula; the model's own count must agree."""
    width, rows = model.n_embd, model.padded_vocab_size
    value_layers = sum(model.has_value_embedding(i) for i in range(model.n_layer))
    attention = 2 * width * width + 2 * width * model.kv_dim
    mlp = (3 if model.activation == "swiglu" else 2) * width * model.mlp_dim
    gates = value_layers * model.value_gate_channels * model.n_kv_head
    counts = {
        "wte": rows * width,
        "value_embeddings": value_layers * rows * model.kv_dim,
        "lm_head": 0 if model.tied_head else rows * width,
        "matrices": model.n_layer * (attention + mlp) + gates,
        "scalars": 2 * model.n_layer * model.residual_scalars
        + model.smear * (model.smear_channels + 1)
        + model.backout,
    }
    if model.positions == "learned":
        counts["positions"] = model.sequence_len * width
    vectors = _vector_parameters(model)
    if vectors:
        counts["vectors"] = vectors
    return {**counts, "total": sum(counts.values())}


def parameter_kind(name: str, ndim: int) -> str:
    """Which kind of ``parameter_counts`` a parameter is, by its name and its number of axes."""
    if name.startswith("transformer.wte."):
        return "wte"
    if name.startswith("transformer.wpe."):
        return "positions"
    if name.startswith("value_embeds."):
        return "value_embeddings"
    if name.startswith("lm_head."):
        return "lm_head"
    if name in {"resid_lambdas", "x0_lambdas", "backout_lambda"} or name.startswith("smear_"):
        return "scalars"
    return "matrices" if ndim == 2 else "vectors"


def _vector_parameters(model: GPTConfig) -> int:
    """Gains and biases, where the switches bring them back."""
    per_norm = model.norm_learnable * (1 + (model.norm == "layer"))
    norms = (2 * model.n_layer + 1 + model.embedding_norm) * per_norm * model.n_embd
    first = (2 if model.activation == "swiglu" else 1) * model.mlp_dim
    per_block = 2 * model.n_embd + 2 * model.kv_dim + first + model.n_embd
    return norms + model.bias * model.n_layer * per_block


def flops_per_token(model: GPTConfig) -> int:
    """FLOPs of training on one token: 6 per parameter in a product, and the attention.

    Attention costs 12 H D min(window, T) a layer: two products (scores, mixing) of 2 FLOPs each,
    three times for forward and backward.
    """
    counts = parameter_counts(model)
    head = counts["wte"] if model.tied_head else counts["lm_head"]
    products = counts["matrices"] + head + counts.get("vectors", 0)
    return 6 * products + attention_flops(model)


def attention_flops(model: GPTConfig) -> int:
    """What attention's scores and mixing are of ``flops_per_token``."""
    seen = sum(min(left, model.sequence_len) for left, _ in model.window_sizes())
    return 12 * model.n_head * model.head_dim * seen


def scaling_parameters(model: GPTConfig) -> int:
    """The N that the horizon counts tokens by: matrices and the head, no tables (2001.08361)."""
    counts = parameter_counts(model)
    return counts["matrices"] + (counts["lm_head"] or counts["wte"])


def dial(depth: int | None = None, recipe: str | Recipe = "run1") -> Dial:
    """Everything that follows from ``depth`` (None: the recipe's own) and ``recipe``.

    Raises UserError for an unknown recipe or a depth below 1.
    """
    recipe = get_recipe(recipe)
    return _dial(recipe.depth if depth is None else depth, recipe)


@cache
def _dial(depth: int, recipe: Recipe) -> Dial:
    """Computed once in a process, whoever asks: command line, planner, trainer, report."""
    model = model_at(depth, recipe)
    size = scaling_parameters(model)
    horizon = recipe.ratio * size

    def of_reference() -> float:
        # asked for by some rules alone: that model may not exist where this one does
        return recipe.ratio * scaling_parameters(model_at(REFERENCE_DEPTH, recipe))

    if recipe.batch_tokens == "auto":
        best = REFERENCE_BATCH * (horizon / of_reference()) ** BATCH_EXPONENT
        batch = 2 ** round(math.log2(best))
    else:
        batch = recipe.batch_tokens
    iterations = recipe.iterations or max(1, int(horizon) // batch)
    lr_scale = math.sqrt(batch / recipe.rates_batch_tokens)
    if recipe.muon.weight_decay_rule == "depth":
        decay = recipe.muon.weight_decay * (REFERENCE_DEPTH / depth) ** 2
    else:
        decay = recipe.muon.weight_decay * lr_scale * of_reference() / horizon
    flops = flops_per_token(model)
    return Dial(
        depth=depth,
        recipe=recipe.name,
        model=model,
        parameters=parameter_counts(model),
        scaling_parameters=size,
        flops_per_token=flops,
        iterations=iterations,
        tokens=iterations * batch,
        total_flops=flops * iterations * batch,
        batch_tokens=batch,
        lr_scale=lr_scale,
        weight_decay=decay,
    )
