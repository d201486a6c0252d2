"""What a step does on this machine: seconds, passes over memory, bytes kept, lost updates."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nanogpt2.config import GPTConfig
from nanogpt2.data.texts import packed_rows
from nanogpt2.depth import dial
from nanogpt2.kernels.precision import good_at_bf16
from nanogpt2.lab.small_data import SmallData
from nanogpt2.lab.small_run import bits_per_byte, small_config, small_recipe
from nanogpt2.lab.timing import torch_threads
from nanogpt2.model.gpt import GPT
from nanogpt2.optim import build_optimizer
from nanogpt2.optim.sharded import Matrices
from nanogpt2.training.fit import Point, fit

PARTS = ("forward", "backward", "Muon", "AdamW")
KINDS = ("products", "attention", "loss", "passes over memory")
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::linear")
MOVES = ("aten::select_scatter", "aten::_unsafe_view", "aten::detach", "aten::empty")
"""operations that compute nothing, whatever their schema says of aliases"""


def slice_of(depth: int, layers: int = 2, length: int = 256, vocab_size: int = 32768) -> GPTConfig:
    """A few layers of the model of ``depth``, at its width: what a page has time for."""
    model = dial(depth).model
    return replace(model, n_layer=layers, sequence_len=length, vocab_size=vocab_size)


def build(config: GPTConfig, dtype: torch.dtype | None = None) -> tuple[GPT, Tensor]:
    """A model in training, in this machine's precision, and a row of tokens with one more."""
    model = GPT(config)
    fast = torch.bfloat16 if good_at_bf16("cpu") else torch.float32
    model.compute_dtype = dtype or fast
    generator = torch.Generator().manual_seed(0)
    shape = (1, config.sequence_len + 1)
    return model.train(), torch.randint(config.vocab_size, shape, generator=generator)


def step_seconds(config: GPTConfig, rounds: int = 2) -> dict[str, float]:
    """Median seconds of each of ``PARTS`` for a step on one row, after a step that does not count.

    Muon and AdamW are told apart by the optimizer's own timeline.
    """
    model, idx = build(config)
    optimizer = build_optimizer(model, "run1", dtype=model.compute_dtype)
    muon = {stack.names[0] for stack in optimizer.stacks if isinstance(stack, Matrices)}
    taken = []
    for _ in range(rounds + 1):
        optimizer.comm.events = []
        marks = [time.perf_counter()]
        loss = model(idx[:, :-1], idx[:, 1:])
        marks.append(time.perf_counter())
        loss.backward()
        marks.append(time.perf_counter())
        optimizer.step()
        model.zero_grad(set_to_none=True)
        spent = {True: 0.0, False: 0.0}
        for event in optimizer.comm.events:
            spent[event.name in muon] += event.stop - event.start
        taken.append((marks[1] - marks[0], marks[2] - marks[1], spent[True], spent[False]))
    return dict(zip(PARTS, map(median, zip(*taken[1:], strict=True)), strict=True))


def kind_of(operation: str) -> str:
    """Which of ``KINDS`` an operation of torch is."""
    if operation.split(".")[0] in PRODUCTS:
        return "products"
    if "attention" in operation or "flash" in operation:
        return "attention"
    return "loss" if "chunked_loss" in operation else "passes over memory"


@dataclass
class Work:
    """What operations of one kind took."""

    seconds: float = 0.0
    bytes: int = 0
    """that went in and came out"""
    calls: int = 0


class _Watch(TorchDispatchMode):
    """Looks at every operation that is no mere view of what is there."""

    def __init__(self) -> None:
        super().__init__()
        self.work = {kind: Work() for kind in KINDS}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        started = time.perf_counter()
        out = func(*args, **(kwargs or {}))
        taken = time.perf_counter() - started
        aliases = [a.alias_info for a in func._schema.returns]
        is_view = any(a is not None and not a.is_write for a in aliases)
        if not is_view and not func.name().startswith(MOVES):
            work = self.work[kind_of(func.name())]
            work.seconds += taken
            tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)]
            work.bytes += sum(_size(t) for t in tensors)
            work.calls += 1
        return out


def _size(tensor: Tensor) -> int:
    """Bytes of memory that stand behind it: an expanded tensor is as small as what it repeats."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def work_of(run: Callable[[], Any]) -> dict[str, Work]:
    """Seconds, bytes and number of the operations of each of ``KINDS`` while ``run`` runs."""
    with _Watch() as watch:
        run()
    return watch.work


def pass_work(config: GPTConfig) -> dict[str, Work]:
    """``work_of`` one forward and backward pass over a row, after one that does not count."""
    model, idx = build(config)
    for _ in range(2):
        work = work_of(lambda: model(idx[:, :-1], idx[:, 1:]).backward())
    return work


def layer_values(depth: int) -> float:
    """Numbers that a layer's passes read and write per token and channel, operation by operation.

    Forward and backward in bf16. What two layers more add, to 64 tokens more: so what is done once
    a layer (weights cast, gradients kept) and once a token (loss) falls out.
    """

    def moved(layers: int, length: int) -> int:
        config = slice_of(depth, layers, length, vocab_size=512)
        model, idx = build(replace(config, window_pattern="L"), torch.bfloat16)
        model.attention_backend = "sdpa"
        model.hidden(idx)  # the first call also tries its attention on a small case
        work = work_of(lambda: model(idx[:, :-1], idx[:, 1:]).backward())
        return work["passes over memory"].bytes

    more = (moved(4, 128) - moved(2, 128)) - (moved(4, 64) - moved(2, 64))
    return more / 2 / 2 / (64 * dial(depth).n_embd)


def kept_bytes(run: Callable[[], Tensor], but: Iterable[Tensor] = ()) -> int:
    """Bytes that autograd keeps of ``run`` for its backward pass, each storage counted once.

    Storages of ``but`` (a model's parameters) are there anyway.
    """
    own = {t.untyped_storage().data_ptr() for t in but}
    kept: dict[int, tuple[int, Tensor]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that none moves in
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(size for size, _ in kept.values())


def model_keeps(config: GPTConfig, recompute: bool) -> int:
    """Bytes that the blocks of a model in fp32 keep of one row."""
    model, idx = build(config, torch.float32)
    model.recompute = recompute
    model.hidden(idx[:, :-1])  # the first call also tries its attention on a small case
    return kept_bytes(lambda: model.hidden(idx[:, :-1]), [*model.parameters(), *model.buffers()])


def graphs(
    function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], dynamic: bool = False
) -> list[list[str]]:
    """What ``torch.compile`` hands to its compiler over these calls: the operations of each graph.

    Nothing is compiled: the graphs run as they are, so that no compiler is needed.
    """
    found: list[list[str]] = []

    def look(module: Any, _: Any) -> Any:
        kinds = ("call_function", "call_method")
        found.append([node.name for node in module.graph.nodes if node.op in kinds])
        return module.forward

    torch.compiler.reset()
    try:
        compiled = torch.compile(function, backend=look, dynamic=dynamic)
        for arguments in calls:
            compiled(*arguments)
    finally:
        torch.compiler.reset()
    return found


def in_bf16_masters(
    data: SmallData, steps: int, seed: int
) -> tuple[list[Mapping[str, Any]], float]:
    """The book's small model with masters in bf16, rounded after every step: its curve and end.

    A point's ``lost`` is the share of numbers in Muon's matrices that a step did not change, of
    those that it would have; the end is held-out bits per byte.
    """
    model = GPT(small_config())
    model.init_weights(seed)
    model.compute_dtype = torch.bfloat16 if good_at_bf16("cpu") else torch.float32
    matrices = [p for p in model.blocks[1].parameters() if p.ndim == 2]

    def round_masters() -> list[Tensor]:
        for parameter in model.parameters():
            parameter.data.copy_(parameter.data.bfloat16())
        return [matrix.detach().clone() for matrix in matrices]

    def after_a_step(_: Point) -> dict[str, float]:
        wanted = [m != before for m, before in zip(matrices, held, strict=True)]
        before, held[:] = [*held], round_masters()
        lost = sum(int((w & (m == b)).sum()) for w, m, b in zip(wanted, held, before, strict=True))
        return {"lost": lost / max(1, sum(int(w.sum()) for w in wanted))}

    held = round_masters()
    length = model.config.sequence_len
    with torch_threads(1):
        curve = fit(
            model,
            build_optimizer(model, small_recipe()),
            (data.batch(step, 8, length, seed) for step in range(steps)),
            steps,
            small_recipe(),
            callbacks=[after_a_step],
        )
    return list(curve), bits_per_byte(model.eval(), data)


def packing_rate(data: SmallData, tokens: int = 100_000) -> float:
    """Tokens a second that this processor makes of text: tokenized and packed, by one thread."""
    ids = data.train[:tokens].tolist()
    texts = [data.tokenizer.decode(ids[at : at + 500]) for at in range(0, tokens, 500)]
    started = time.perf_counter()
    packed = sum(len(row) for row in packed_rows(texts, data.tokenizer, 129))
    return packed / (time.perf_counter() - started)
