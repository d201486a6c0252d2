"""Bytes of a training run, by formula: what every rank keeps, and an estimate of what it borrows.

Kept for the whole run, and exact: parameters, gradients and optimizer state under ZeRO-2
(Rajbhandari et al., arXiv 1910.02054). Borrowed within a step, and estimated: activations
(Korthikanti et al., arXiv 2205.05198), the loss, and what the optimizer's step needs. Of a GPU that
is all; on a processor the whole process counts, and what its heap wastes. On the disk: shards and
checkpoints. ``python -m benchmarks.planner`` compares. No torch.
Chapters: where_the_time_goes, zero2, speedrun.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from nanogpt2 import reported
from nanogpt2.config import GPTConfig
from nanogpt2.depth import dial, parameter_counts
from nanogpt2.kernels.logits import chunk_rows
from nanogpt2.recipes import Recipe

ACTIVATION_BYTES = 34
"""per token, layer and channel in 16 bits, attention scores not kept (2205.05198, section 4)"""
KEPT_INPUTS = 3
"""values per token, layer and channel that stay with ``recompute``: the stream after a layer, the
same times the layer's scalars, and what it takes of a value embedding"""
LOGIT_BYTES = {"compiled": 5, "eager": 15}
"""per logit, of the loss that holds all of them, forward and backward in 16 bits: what the peak of
``python -m benchmarks.loss`` is over its number of logits"""
STEP_BYTES = 20
"""per parameter of the largest share of a stack of matrices, for copies and products of the step"""
PROCESS_BYTES = 450_000_000
"""of a training process on a processor: Python, torch, tokenizer, text read ahead; with torch 2.13
on Linux"""
HEAP = {"fp32": 1.4, "half": 1.55, "recompute": 2.4}
"""what the heap takes over what lives in it: between tensors that stay, those that went leave holes
which the next, of the same size and aligned, do not fit (glibc 2.36, by ``mallinfo2``)"""
SHARD_BYTES = int(reported.SHARD_BYTES)
TOKENS_PER_SHARD = {
    "fineweb-edu": int(
        reported.SHARD_CHARACTERS / reported.CHARACTERS_PER_TOKEN * (1 - reported.CROPPED)
    ),
    "climbmix": int(dial(recipe="run4").tokens / reported.CLIMBMIX_SHARDS),
}
"""that reach the model, about: a shard's characters over those of a token, less what packing crops
away; of ClimbMix, what run 4 took from the shards that it read"""


@dataclass(frozen=True)
class Memory:
    """Bytes on the fullest rank."""

    parameters: int
    """replicated: fp32 masters; the embedding tables in bf16 where products are"""
    gradients: int
    """shaped like the parameters, and whole on every rank until the step reduces them"""
    optimizer: int
    """this rank's share: AdamW's two moments, Muon's momentum and second moment, all fp32"""
    # estimates
    activations: int
    """while the backward pass runs"""
    step: int
    """while the optimizer steps; the activations are gone by then"""
    copies: int = 0
    """parameters and optimizer's share as they are being saved; a GPU's are in the host's memory"""
    heap: int = 0
    """lost between tensors; a GPU's ``fitting.USABLE`` stands for it"""
    process: int = 0
    """the program itself, where it lies in the same memory"""

    @property
    def peak(self) -> int:
        """The most that is held at one time."""
        kept = self.parameters + self.gradients + self.optimizer + self.copies
        return kept + max(self.activations, self.step) + self.heap + self.process


def matrix_shapes(model: GPTConfig) -> dict[tuple[int, int], int]:
    """How many matrices of each (rows, columns) the blocks hold: Muon's stacks."""
    width, kv, hidden = model.n_embd, model.kv_dim, model.mlp_dim
    into_mlp = 2 if model.activation == "swiglu" else 1
    gates = sum(model.has_value_embedding(layer) for layer in range(model.n_layer))
    shapes = Counter[tuple[int, int]]()
    shapes[width, width] += 2 * model.n_layer  # queries, output
    shapes[kv, width] += 2 * model.n_layer  # keys, values
    shapes[hidden, width] += into_mlp * model.n_layer
    shapes[width, hidden] += model.n_layer
    shapes[model.n_kv_head, model.value_gate_channels] += gates
    return dict(+shapes)  # those there are


def table_shapes(model: GPTConfig) -> list[tuple[int, int]]:
    """(rows, columns) of every table and of the head: what AdamW deals out by rows."""
    rows = model.padded_vocab_size
    value_layers = sum(model.has_value_embedding(layer) for layer in range(model.n_layer))
    tables = [(rows, model.n_embd)] * (1 if model.tied_head else 2)
    tables += [(rows, model.kv_dim)] * value_layers
    if model.positions == "learned":
        tables.append((model.sequence_len, model.n_embd))
    return tables


def parameter_bytes(model: GPTConfig, bf16_tables: bool) -> int:
    """Bytes of the parameters; their gradients take as many."""
    counts = parameter_counts(model)
    tables = counts["value_embeddings"] + (0 if model.tied_head else counts["wte"])
    return 4 * counts["total"] - (2 * tables if bf16_tables else 0)


def optimizer_bytes(model: GPTConfig, recipe: Recipe, ranks: int) -> int:
    """Bytes of optimizer state on the fullest of ``ranks``.

    AdamW keeps 8 bytes per element and deals out rows (the few scalars and vectors are counted
    whole); Muon keeps 4 and one more number per neuron, and deals out whole matrices.
    """
    counts = parameter_counts(model)
    total = 8 * (counts["scalars"] + counts.get("vectors", 0))
    total += sum(8 * math.ceil(rows / ranks) * cols for rows, cols in table_shapes(model))
    for (rows, cols), number in matrix_shapes(model).items():
        if recipe.matrices == "muon":
            total += 4 * math.ceil(number / ranks) * (rows * cols + max(rows, cols))
        else:
            total += 8 * number * math.ceil(rows / ranks) * cols
    return total


def activation_bytes(
    model: GPTConfig,
    rows: int,
    bytes_per_value: int,
    recompute: bool = False,
    logit_bytes: int = 0,
) -> int:
    """Estimate for a forward and backward pass over ``rows`` rows.

    ``logit_bytes``: of each logit, in the loss that holds all; 0 for the chunked one.
    """
    tokens = rows * model.sequence_len
    whole = 1 if recompute else model.n_layer  # blocks whose insides are held at one time
    blocks = ACTIVATION_BYTES * bytes_per_value // 2 * tokens * whole * model.n_embd
    if recompute:
        blocks += KEPT_INPUTS * bytes_per_value * tokens * model.n_layer * model.n_embd
    chunk = min(tokens, chunk_rows(model.vocab_size))
    loss = 4 * model.padded_vocab_size * (model.n_embd + 3 * chunk)
    if logit_bytes:
        loss = model.padded_vocab_size * (bytes_per_value * model.n_embd + logit_bytes * tokens)
    return blocks + loss + 2 * bytes_per_value * tokens * model.n_embd


def eager_layer_bytes(model: GPTConfig, bytes_per_value: int) -> int:
    """Of a token and a layer, kept for a backward pass of which no compiler fuses anything.

    What the operations of ``nanogpt2.model`` need again, counted one by one.
    """
    width, half = model.n_embd, bytes_per_value < 4
    values = 4 * width  # what goes into attention and MLP, before their norm and after it
    values += 4 * width  # queries, keys, values, and what attention makes of them
    values += (width + model.kv_dim) * model.qk_norm  # the first two before their norm
    values += width * model.residual_scalars  # what the layer's scalar is multiplied with
    values += {"relu2": 2, "gelu": 2, "swiglu": 4}[model.activation] * model.mlp_dim
    kept = bytes_per_value * values
    if model.value_embeddings:  # gated, in every second layer
        kept += bytes_per_value * model.kv_dim // 2
    if half and model.norm == "rms":  # which takes the root in fp32, and keeps that copy
        kept += (4 - bytes_per_value) * (2 * width + (width + model.kv_dim) * model.qk_norm)
    return kept


def eager_bytes(model: GPTConfig, rows: int, bytes_per_value: int, recompute: bool = False) -> int:
    """``activation_bytes`` on a processor: nothing is fused, and the loss is chunked."""
    tokens, head = rows * model.sequence_len, model.padded_vocab_size * model.n_embd
    value = bytes_per_value * tokens * model.n_embd  # of each token and channel
    layer = tokens * eager_layer_bytes(model, bytes_per_value)
    kept = KEPT_INPUTS * value if recompute else layer
    logits = bytes_per_value * min(tokens, chunk_rows(model.vocab_size)) * model.padded_vocab_size
    loss = logits + value + (4 if bytes_per_value == 4 else 8) * head  # its gradient in fp32
    back = 2 * bytes_per_value * tokens * model.mlp_dim + value + 8 * head
    return model.n_layer * kept + 2 * value + max(loss, back + layer * recompute)


def step_bytes(model: GPTConfig, recipe: Recipe, ranks: int) -> int:
    """Estimate for the optimizer's step: all matrices once more, and room to work on a stack."""
    if recipe.matrices != "muon":
        return 0
    shapes = matrix_shapes(model)
    stacked = sum(rows * cols * number for (rows, cols), number in shapes.items())
    largest = max(rows * cols * math.ceil(n / ranks) for (rows, cols), n in shapes.items())
    return 4 * stacked + STEP_BYTES * largest


def memory_per_rank(
    model: GPTConfig,
    recipe: Recipe,
    ranks: int,
    rows: int,
    half: bool,
    bf16_tables: bool,
    recompute: bool = False,
    logit_bytes: int = 0,
) -> Memory:
    """Bytes on the fullest of ``ranks`` with ``rows`` rows in a forward pass.

    Args:
        model: sizes and switches.
        recipe: who updates the matrices.
        ranks: W, over which the optimizer state is sharded.
        rows: device batch size.
        half: products (and so activations) in bf16, fp16 or fp8, else fp32.
        bf16_tables: embedding tables in bf16, as on CUDA.
        recompute: only what goes into each block is kept, and one block's insides at a time.
        logit_bytes: as in ``activation_bytes``.
    """
    parameters = parameter_bytes(model, bf16_tables)
    return Memory(
        parameters=parameters,
        gradients=parameters,
        optimizer=optimizer_bytes(model, recipe, ranks),
        activations=activation_bytes(model, rows, 2 if half else 4, recompute, logit_bytes),
        step=step_bytes(model, recipe, ranks),
    )


def memory_of_process(
    model: GPTConfig, recipe: Recipe, ranks: int, rows: int, tokens: int, half: bool, again: bool
) -> Memory:
    """Bytes of the fullest of ``ranks`` processes that train on a processor.

    Args:
        model, recipe, ranks, rows, half: as ``memory_per_rank`` takes them.
        tokens: of a rank in a step; tables much longer than that have thin gradients.
        again: forward passes are done twice (``recompute``).
    """
    parameters, optimizer = parameter_bytes(model, False), optimizer_bytes(model, recipe, ranks)
    counts, gradients = parameter_counts(model), parameters
    if ranks == 1 and tokens < model.padded_vocab_size / 2:  # only the rows that were read
        tables = counts["value_embeddings"] + (0 if model.tied_head else counts["wte"])
        gradients -= int(4 * tables * (1 - tokens / model.padded_vocab_size))
    activations = eager_bytes(model, rows, 2 if half else 4, again)
    waste = HEAP["recompute" if again else "half" if half else "fp32"] - 1
    return Memory(
        parameters=parameters,
        gradients=gradients,
        optimizer=optimizer,
        activations=activations,
        step=step_bytes(model, recipe, ranks),
        copies=parameters + optimizer,
        heap=int(waste * (gradients + activations)),
        process=PROCESS_BYTES,
    )


def shards_needed(data: str, tokens: int) -> int:
    """Training shards of a downloaded data set that hold so many tokens; 0 without a download."""
    held = TOKENS_PER_SHARD.get(data)
    return math.ceil(tokens / held) if held else 0
