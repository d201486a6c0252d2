"""MuonAdamW, sharded: every rank keeps all parameters and its share of gradients and state.

The scheme is ZeRO's second stage (Rajbhandari et al., arXiv 1910.02054) without a wrapper around
the model: gradients are reduced here, once a step, after accumulation. A step has three phases, in
which communication of one tensor overlaps computation on another:

1. launch all reductions: reduce-scatter of each large AdamW gradient by rows and of each stack of
   equal Muon matrices by matrices (zero-padded to a multiple of the world size); all-reduce of
   parameters under 1,024 elements, which are not worth cutting up;
2. as each arrives, update the owned share and launch its all-gather;
3. wait for the gathers and copy back.

One process is the case of world size 1 of the same code. Chapter: zero2.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from nanogpt2.optim.adamw import CHUNK, adamw_scalars, adamw_update
from nanogpt2.optim.collectives import Collectives, Pending, bounds, padded
from nanogpt2.optim.muon import muon_update, neuron_axis

SMALL = 1024
"""parameters with fewer elements are replicated instead of sharded"""
LARGE_MATRIX = 1 << 18
"""on a processor, matrices from this size on are updated one by one, where they stand"""


class Rows:
    """One AdamW parameter, its rows dealt out over the ranks; replicated when it is small."""

    def __init__(self, name: str, p: nn.Parameter, group: dict, comm: Collectives) -> None:
        self.names, self.p, self.group, self.comm = [name], p, group, comm
        self.sharded = p.numel() >= SMALL and comm.world_size > 1
        ranks = (comm.world_size, comm.rank) if self.sharded else (1, 0)
        self.start, self.stop = bounds(p.size(0), *ranks)
        shape = (self.stop - self.start, *p.shape[1:])
        moments = ("exp_avg", "exp_avg_sq")  # fp32 also for bf16 tables: a decay of 0.995 needs it
        self.state = {m: torch.zeros(shape, dtype=torch.float32, device=p.device) for m in moments}
        self.square = torch.zeros(())

    def launch(self) -> None:
        """Phase 1."""
        g = gradient_of(self.p)
        if self.comm.world_size == 1:
            self.reduced = Pending(g, g)
        elif self.sharded:
            self.reduced = self.comm.reduce_scatter(padded(_dense(g), self.comm.world_size))
        else:
            self.reduced = self.comm.all_reduce(_dense(g).clone())

    def update(self, functions: Functions) -> None:
        """Phase 2."""
        g = self.reduced.wait()
        del self.reduced
        if self.comm.world_size > 1:
            g = g / self.comm.world_size
        share = self.p.data[self.start : self.stop]
        g = g.coalesce() if g.is_sparse else g[: share.size(0)]
        if functions.measure and (self.sharded or self.comm.rank == 0):
            self.square = _square(g.values() if g.is_sparse else g)
        scalars = adamw_scalars(self.group, self.group["step"])
        state = (self.state["exp_avg"], self.state["exp_avg_sq"])
        for piece in functions.pieces(share, g, *state):
            functions.adamw(*piece, *scalars, self.group["eps"])
        if self.sharded:
            self._launch_gather(share)

    def _launch_gather(self, share: Tensor) -> None:
        W, rows = self.comm.world_size, self.p.size(0)
        part = padded_to(share.clone(), -(-rows // W))
        whole = self.p.data if rows % W == 0 else part.new_empty(part.size(0) * W, *part.shape[1:])
        self.gathered = self.comm.all_gather(whole, part)

    def finish(self) -> None:
        """Phase 3."""
        if not self.sharded:
            return
        whole = self.gathered.wait()
        del self.gathered
        if whole is not self.p.data and whole.size(0) != self.p.size(0):
            self.p.data.copy_(whole[: self.p.size(0)])

    def shares(self) -> Iterator[tuple[str, int, int, dict[str, Tensor]]]:
        """(parameter name, first row, last row + 1, its state) of what this rank owns."""
        yield self.names[0], self.start, self.stop, self.state


class Matrices:
    """All Muon matrices of one shape, stacked and dealt out over the ranks."""

    def __init__(self, group: dict, comm: Collectives) -> None:
        self.names, self.params = group["names"], group["params"]
        self.group, self.comm = group, comm
        first = self.params[0]
        rows, cols = first.shape
        self.start, self.stop = bounds(len(self.params), comm.world_size, comm.rank)
        owned = self.stop - self.start
        second = (owned, rows, 1) if neuron_axis(rows, cols) == -1 else (owned, 1, cols)
        new = {"dtype": torch.float32, "device": first.device}
        self.state = {
            "momentum_buffer": torch.zeros(owned, rows, cols, **new),
            "second_moment": torch.zeros(second, **new),
        }
        self.square = torch.zeros(())
        # A large matrix fills the processor by itself, and in place it costs no copies.
        self.in_place = (
            comm.world_size == 1 and first.device.type == "cpu" and first.numel() >= LARGE_MATRIX
        )

    def launch(self) -> None:
        """Phase 1."""
        if self.comm.world_size > 1:
            self.reduced = self.comm.reduce_scatter(padded(self._stack(), self.comm.world_size))

    def _stack(self) -> Tensor:
        return torch.stack([gradient_of(p) for p in self.params])

    def update(self, functions: Functions) -> None:
        """Phase 2."""
        group, shape = self.group, self.params[0].shape
        lr = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
        values = (group["momentum"], lr, group["weight_decay"], 1 - group["beta2"])
        scalars = [torch.tensor(v, dtype=torch.float32) for v in values]
        plain = (group["iterations"], group["divisor"], group["equalize_rows"], group["fix_norm"])
        buffer, second = self.state["momentum_buffer"], self.state["second_moment"]
        if self.in_place:
            if functions.measure:
                self.square = sum((_square(gradient_of(p)) for p in self.params), torch.zeros(()))
            for i, p in enumerate(self.params):
                state = (buffer[i : i + 1], second[i : i + 1])
                functions.muon(p.data[None], gradient_of(p)[None], *state, *scalars, *plain)
            return
        if self.comm.world_size == 1:
            g = self._stack()
        else:
            g = self.reduced.wait()[: self.stop - self.start] / self.comm.world_size
            del self.reduced
        if functions.measure:
            self.square = _square(g)
        owned = self.params[self.start : self.stop]
        w = torch.stack([p.data for p in owned]) if owned else g.new_empty(0, *shape)
        if owned:
            functions.muon(w, g, buffer, second, *scalars, *plain)
        if self.comm.world_size == 1:
            self.gathered = Pending(w, w)
        else:
            W = self.comm.world_size
            part = padded_to(w, -(-len(self.params) // W))
            whole = part.new_empty(part.size(0) * W, *shape)
            self.gathered = self.comm.all_gather(whole, part)

    def finish(self) -> None:
        """Phase 3."""
        if self.in_place:
            return
        whole = self.gathered.wait()
        del self.gathered
        copies = list(whole[: len(self.params)].unbind())
        torch._foreach_copy_([p.data for p in self.params], copies)

    def shares(self) -> Iterator[tuple[str, int, int, dict[str, Tensor]]]:
        """(parameter name, first row, last row + 1, its state) of what this rank owns."""
        for i, name in enumerate(self.names[self.start : self.stop]):
            yield name, 0, self.params[0].size(0), {k: v[i] for k, v in self.state.items()}


class Functions:
    """The two step functions, compiled where that was asked for."""

    def __init__(self, compiled: bool, dtype: torch.dtype, device: torch.device) -> None:
        self.adamw: Callable[..., None] = adamw_update
        self._muon: Callable[..., None] = muon_update
        self.dtype = dtype
        self.measure = False
        # Eager on a processor: short pieces stay in the cache from one operation to the next.
        self.chunk = None if compiled or device.type != "cpu" else CHUNK
        if compiled:
            self.adamw = torch.compile(adamw_update, fullgraph=True, dynamic=True)
            self._muon = torch.compile(muon_update, fullgraph=True, dynamic=False)

    def muon(self, *arguments: Any) -> None:
        """``muon_update`` with products in this machine's precision."""
        self._muon(*arguments, self.dtype)

    def pieces(self, p: Tensor, g: Tensor, *state: Tensor) -> Iterator[list[Tensor]]:
        """The same stretches of all tensors, flat, short enough for the cache."""
        if g.is_sparse:
            rows = max(1, CHUNK // g[0].numel())
            for start, block in _blocks(g, rows):
                moments = [t[start : start + rows] for t in state]
                stretch = [p[start : start + rows], block[: p.size(0) - start], *moments]
                yield [t.reshape(-1).data for t in stretch]
            return
        flat = [t.reshape(-1).data for t in (p, g, *state)]  # no view relations for dynamo to guard
        step = self.chunk or max(1, p.numel())
        for i in range(0, p.numel(), step):
            yield [t[i : i + step] for t in flat]


def _blocks(g: Tensor, rows: int) -> Iterator[tuple[int, Tensor]]:
    """(first row, dense block of ``rows`` rows) of a coalesced sparse ``g``, in the same memory."""
    at, values = g.indices()[0], g.values()
    block = values.new_zeros(rows, *values.shape[1:])
    edges = torch.arange(0, g.size(0) + rows, rows)
    ends = torch.searchsorted(at, edges).tolist()
    for start, first, last in zip(edges.tolist(), ends, ends[1:], strict=False):
        here = at[first:last] - start
        block[here] = values[first:last]
        yield start, block
        block[here] = 0.0


class MuonAdamW(torch.optim.Optimizer):
    """Muon for matrices, AdamW for the rest, over any number of ranks.

    Args:
        groups: from ``nanogpt2.optim.groups.parameter_groups``.
        compiled: compile the step functions (at the first step).
        dtype: precision of Muon's products.
        process_group: ranks that share the work; None is all of them.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        compiled: bool = False,
        dtype: torch.dtype = torch.bfloat16,
        process_group: Any = None,
    ) -> None:
        super().__init__(groups, defaults={"step": 0})
        self.comm = Collectives(process_group)
        self._device = self.param_groups[0]["params"][0].device
        self.functions = Functions(compiled, dtype, self._device)
        self.units: list[Rows | Matrices] = []
        for group in self.param_groups:
            if group["kind"] == "muon":
                self.units.append(Matrices(group, self.comm))
                self.state[group["params"][0]] = self.units[-1].state
            else:
                for name, p in zip(group["names"], group["params"], strict=True):
                    self.units.append(Rows(name, p, group, self.comm))
                    self.state[p] = self.units[-1].state

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Average gradients over the ranks, update, leave all ranks with equal parameters."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            group["step"] += 1
        for phase in ("launch", "update", "finish"):
            for unit in self.units:
                start = time.perf_counter()
                unit.update(self.functions) if phase == "update" else getattr(unit, phase)()
                self.comm.record(phase, unit.names[0], start)
        return loss

    @property
    def measure_gradient(self) -> bool:
        """Whether steps also take the norm of the averaged gradient (one more pass over it)."""
        return self.functions.measure

    @measure_gradient.setter
    def measure_gradient(self, wanted: bool) -> None:
        self.functions.measure = wanted

    @torch.no_grad()
    def gradient_norm(self) -> float:
        """Euclidean norm of the averaged gradient of the last measured step (collective)."""
        total = torch.stack([unit.square.float().to(self._device) for unit in self.units]).sum()
        return self.comm.all_reduce(total.reshape(1), counted=False).wait().sqrt().item()

    def state_bytes(self) -> int:
        """Bytes of optimizer state on this rank."""
        return sum(t.numel() * t.element_size() for u in self.units for t in u.state.values())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore this rank's state in fp32; torch would cast it to the parameter's precision."""
        params = [p for group in self.param_groups for p in group["params"]]
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update({k: v for k, v in saved.items() if k not in ("params", "names")})
        for index, entry in state_dict["state"].items():
            for key, value in entry.items():
                self.state[params[index]][key].copy_(value)

    def shard_state(self) -> Iterator[tuple[str, int, int, dict[str, Tensor]]]:
        """(parameter name, start row, stop row, {state name: tensor}) for all that this rank owns.

        Tensors are the live state, not copies. Independent of the world size: ``load_shards`` puts
        shares of any other number of ranks together again.
        """
        for unit in self.units:
            yield from unit.shares()

    def load_shards(self, read: Callable[[str, str, int, int], Tensor], step: int) -> None:
        """Fill this rank's state with ``read(parameter name, state name, start row, stop row)``."""
        for name, start, stop, state in self.shard_state():
            for key, tensor in state.items():
                tensor.copy_(read(name, key, start, stop))
        for group in self.param_groups:
            group["step"] = step


def padded_to(part: Tensor, rows: int) -> Tensor:
    """``part`` with zero rows appended up to ``rows``."""
    missing = rows - part.size(0)
    return part if not missing else torch.cat((part, part.new_zeros(missing, *part.shape[1:])))


def _square(g: Tensor) -> Tensor:
    """Sum of squares in fp32, without a copy of ``g``."""
    return torch.linalg.vector_norm(g, dtype=torch.float32).square()


def gradient_of(p: nn.Parameter) -> Tensor:
    """The gradient, zero where the loss did not reach the parameter."""
    return torch.zeros_like(p) if p.grad is None else p.grad


def _dense(g: Tensor) -> Tensor:
    """A table's gradient may hold only the rows that the step read."""
    return g.to_dense() if g.is_sparse else g


def expected_traffic(optimizer: MuonAdamW) -> tuple[dict[str, int], dict[str, int]]:
    """(calls, bytes) of one step by collective: the formula of the ZeRO-2 chapter.

    A tensor of R rows (or K matrices) over W ranks travels twice as ceil(R / W) W rows: once as
    gradients (reduce-scatter), once as parameters (all-gather). Small ones are all-reduced once.
    """
    W = optimizer.comm.world_size
    calls = {"reduce_scatter": 0, "all_gather": 0, "all_reduce": 0}
    size = dict(calls)
    if W == 1:
        return calls, size
    for unit in optimizer.units:
        if isinstance(unit, Rows):
            p, count = unit.p, unit.p.size(0)
        else:
            p, count = unit.params[0], len(unit.params)
        each = p.element_size() * (p.numel() // p.size(0) if isinstance(unit, Rows) else p.numel())
        if isinstance(unit, Rows) and p.numel() < SMALL:
            calls["all_reduce"] += 1
            size["all_reduce"] += count * each
            continue
        for name in ("reduce_scatter", "all_gather"):
            calls[name] += 1
            size[name] += -(-count // W) * W * each
    return calls, size
